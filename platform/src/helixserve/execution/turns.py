"""Who computes next: one compute thread, and a turn an item.

A request that had no turn yet goes before those that had one, so that a short request waits for no
more than what is computed just then; but of any two turns one goes to a request that had one, so
that newcomers keep nobody from ending. Among their like, requests take turns in order.

>>> turns = Turns()
>>> turns.take(lambda: 42, newcomer=True).result()
42
>>> turns.close()
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Turns:
    """One thread that gives turns."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="helix-compute")
        self._lock = threading.Lock()
        self._newcomers: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._others: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._newcomer_was_last = False

    def take(self, function: Callable[[], T], *, newcomer: bool) -> Future[T]:
        """Run `function` when its turn comes; a future that is cancelled before then gives its turn away."""
        future: Future[T] = Future()
        with self._lock:
            (self._newcomers if newcomer else self._others).append((future, function))
        self._pool.submit(self._run_next)
        return future

    def close(self) -> None:
        """Run what was asked for, then end the thread. Blocks."""
        self._pool.shutdown()

    def _run_next(self) -> None:
        future, function = self._next()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:  # whatever it is, it belongs to who waits for it
            future.set_exception(error)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]]:
        with self._lock:
            newcomer = bool(self._newcomers) and not (self._newcomer_was_last and self._others)
            self._newcomer_was_last = newcomer
            return (self._newcomers if newcomer else self._others).popleft()
