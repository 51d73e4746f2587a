"""Waiting for what a test needs to be so, never for a time: a machine may be as busy as it likes."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_S = 120.0
"""Only how long it takes until a test that hangs says so."""


def until(condition: Callable[[], object], what: str, seconds: float = LONGEST_S) -> None:
    """Return as soon as `condition()` is true. Raises AssertionError, naming `what`, when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s there is still not: {what}"
        time.sleep(0.01)
