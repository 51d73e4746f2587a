"""Spreads an audit's work over the processors, in processes that see all that was read before."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Part = TypeVar("Part")
Found = TypeVar("Found")

_task: tuple[Callable[[Any], Any], Sequence[Any]] | None = None
"""What forked processes work on: inherited, so that a million entries are not copied to them."""


def spread(work: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """`[work(part) for part in parts]`, in that order whichever process is done first.

    Raises BrokenProcessPool when one ends before it is done: the system kills who asks for too much memory.
    """
    global _task  # noqa: PLW0603  # inherited by the forked processes; read by `_run` only
    processes = min(len(os.sched_getaffinity(0)), len(parts))
    if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [work(part) for part in parts]
    _task = (work, parts)
    try:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_run, range(len(parts))))
    finally:
        _task = None


@contextmanager
def collector_resting() -> Iterator[None]:
    """No garbage is looked for: what an audit reads it keeps, and a look goes through millions of things."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def ranges(size: int, step: int) -> list[range]:
    """`range(size)`, cut into pieces of `step`."""
    return [range(start, min(start + step, size)) for start in range(0, size, step)]


def _run(number: int) -> Any:
    if _task is None:
        raise RuntimeError("nothing to work on: this process was not forked by spread()")
    work, parts = _task
    return work(parts[number])
