"""Waiting for what a test needs to be so, never for a time: a machine may be as busy as it likes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

LONGEST_S = 300.0
"""Only how long it takes until a test that hangs says so."""

_POLL_S = 0.01


def until(condition: Callable[[], object], what: str, seconds: float = LONGEST_S) -> None:
    """Return as soon as `condition()` is true. Raises AssertionError, naming `what`, when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s there is still not: {what}"
        time.sleep(_POLL_S)


async def until_async(condition: Callable[[], object], what: str, seconds: float = LONGEST_S) -> None:
    """The same in an event loop, which goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s there is still not: {what}"
        await asyncio.sleep(_POLL_S)


def longer(seconds: float, what: str) -> Iterator[float]:
    """A time limit for each try, doubled each time: for a limit that a test needs to expire, but not too early.

    Raises AssertionError, naming `what`, when a limit beyond LONGEST_S was too short as well.
    """
    for tries in itertools.count():
        limit = seconds * 2**tries
        assert limit < 2 * LONGEST_S, f"within {limit / 2:.0f} s there was not: {what}"
        yield limit
