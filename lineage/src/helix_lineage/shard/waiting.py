"""Entries that wait for the committer, and how those who wait for them are told: threads and coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

from helix_lineage.errors import ShardError
from helix_lineage.shard.payload_writer import PreparedOutput
from helix_lineage.tlog import journal
from helix_lineage.tlog.merkle import leaf_hash


class Bell:
    """Calls who waits for `wake`: at once, or at the end of an event loop's turn.

    Coroutines whose turn it is share one commit so: called at the first of them, the committer would
    take the interpreter from the others, and commit that one alone.
    """

    def __init__(self, wake: threading.Condition) -> None:
        self._wake = wake
        self._promised: asyncio.AbstractEventLoop | None = None
        """The loop that is to ring; one that is closed before keeps no other from ringing."""

    def ring(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """At once, or when the callbacks of `loop` that are ready now have run; in that loop's thread."""
        if loop is None:
            with self._wake:
                self._promised = None
                self._wake.notify_all()
        elif self._promised is not loop:
            self._promised = loop
            loop.call_soon(self.ring)


class Pending:
    """Entries of one caller, with all that can be made of them before their place is known.

    Args:
        items: the payload; None for entries that have none.
        future: what the caller awaits; a caller without one is a thread, and calls `wait`.
    """

    __slots__ = ("_done", "_failure", "_first", "_future", "entries", "frames", "items", "leaves")

    def __init__(
        self, entries: list[bytes], items: list[PreparedOutput] | None, future: asyncio.Future[int] | None = None
    ) -> None:
        self.entries, self.items = entries, items
        self.leaves = [leaf_hash(entry) for entry in entries]
        self.frames = b"".join([journal.frame(journal.ENTRY, entry) for entry in entries])
        self._first = 0
        self._failure: ShardError | None = None
        self._future = future
        if future is None:
            # A bare lock: a concurrent.futures.Future makes three of them and takes ten times as long.
            self._done = threading.Lock()
            self._done.acquire()

    def wait(self) -> int:
        """The sequence of the first entry, once everything is on the disk. Raises ShardError when it is not."""
        self._done.acquire()
        if self._failure is not None:
            raise self._failure
        return self._first

    def settle(self) -> None:
        """Tell the coroutine that waits; in its event loop's thread."""
        if self._future is None or self._future.done():  # given up meanwhile: it is recorded all the same
            return
        if self._failure is not None:
            self._future.set_exception(self._failure)
        else:
            self._future.set_result(self._first)

    @staticmethod
    def accept(group: Sequence[Pending], first: int) -> None:
        """Everything is on the disk, from sequence `first` on."""
        for pending in group:
            pending._first = first
            first += len(pending.entries)
        Pending._tell(group)

    @staticmethod
    def refuse(group: Sequence[Pending], failure: ShardError) -> None:
        """Nothing of it was recorded."""
        for pending in group:
            pending._failure = failure
        Pending._tell(group)

    @staticmethod
    def _tell(group: Sequence[Pending]) -> None:
        """Wake threads one by one, and each event loop once."""
        loops: dict[asyncio.AbstractEventLoop, list[Pending]] = {}
        for pending in group:
            if pending._future is None:
                pending._done.release()
            else:
                loops.setdefault(pending._future.get_loop(), []).append(pending)
        for loop, waiting in loops.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, waiting)


def _settle(waiting: Sequence[Pending]) -> None:
    for pending in waiting:
        pending.settle()
