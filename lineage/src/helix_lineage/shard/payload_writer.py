"""Writes payload records: prepared by the callers' threads, written by the committer's."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from helix_lineage.errors import ShardError, reason
from helix_lineage.shard import payload
from helix_lineage.shard.entries import commitment, commitment_to
from helix_lineage.tlog.disk import AppendFile, make_folder, remove_file, sync_folder
from helix_lineage.tlog.layout import ShardFolder

_REMEMBERED_INPUTS = 256


@dataclass(slots=True)
class PreparedInput:
    """A request's input, stored once for all its items."""

    salt: bytes
    commitment: bytes
    body: bytes
    at: tuple[int, int] | None = None
    """Segment and offset, once written; only the committer touches it."""


@dataclass(slots=True)  # frozen, it would take four times as long to make, and one is made for every item
class PreparedOutput:
    """An item's output and its request's input; nobody changes it."""

    given: PreparedInput
    salt: bytes
    commitment: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class SegmentPosition:
    """A place to go back to."""

    segment: int
    size: int


@dataclass(slots=True)
class _Group:
    written: list[PreparedInput] = field(default_factory=list)


class _Salts:
    """Random bytes of the kernel, asked for many at a time. Thread-safe; each is given once."""

    _SALT_BYTES, _AT_ONCE = 32, 64

    def __init__(self) -> None:
        self._unused: list[bytes] = []

    def draw(self) -> bytes:
        """A salt."""
        while True:
            try:
                return self._unused.pop()  # one step of the interpreter: two threads never get the same
            except IndexError:
                drawn = os.urandom(self._SALT_BYTES * self._AT_ONCE)
                size = self._SALT_BYTES
                self._unused.extend(drawn[at : at + size] for at in range(0, len(drawn), size))


class PayloadWriter:
    """The segments of one shard. `prepare` may be called from any thread, the rest from one."""

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._salts = _Salts()
        self._inputs: OrderedDict[tuple[bytes, bytes], PreparedInput] = OrderedDict()
        self._inputs_lock = threading.Lock()
        self._group = _Group()
        self._number = -1
        self._file: AppendFile | None = None

    def prepare(self, request_id: bytes, given: bytes, answer: bytes, *, alone: bool = False) -> PreparedOutput:
        """Salt, commit to and compress an item's input and output. Raises ShardError for what is too large.

        Args:
            alone: the request has no other item, so its input need not be remembered.
        """
        salt = self._salts.draw()
        digest = hashlib.sha256(given).digest()
        shared = self._make_input(given, digest) if alone else self._shared_input(request_id, given, digest)
        return PreparedOutput(shared, salt, commitment(salt, answer), payload.compress(answer))

    def write(self, items: Iterable[tuple[int, PreparedOutput]]) -> SegmentPosition:
        """Write `(sequence, item)`s; gives the place that `undo` goes back to.

        Raises OSError when nothing of it was kept, ShardError when that can't be said.
        """
        items = list(items)
        self._group = _Group()
        file = self._segment_for(items[0][0])
        mark = SegmentPosition(self._number, file.size)
        try:
            file.write(self._records(items, file.size))
        except BaseException as error:
            try:
                self.undo(mark)
            except OSError as worse:
                raise ShardError(f"cannot cut the payload back: {reason(worse)}", where=self._folder.id) from error
            raise
        return mark

    def sync(self) -> None:
        """Return when everything written is on the disk. Raises OSError."""
        if self._file is not None:
            self._file.sync()

    def settle(self) -> None:
        """The last group was acknowledged: its inputs' bodies need not be kept in memory."""
        for item in self._group.written:
            item.body = b""
        self._group = _Group()

    def undo(self, mark: SegmentPosition) -> None:
        """Cut off the last group, durably: no later one need follow in this segment. Raises OSError."""
        for item in self._group.written:
            item.at = None
        self._group = _Group()
        if self._file is not None and self._number == mark.segment:
            self._file.cut(mark.size)
            self._file.sync()

    def close(self) -> None:
        """Let go of the segment."""
        if self._file is not None:
            self._file.close()

    def trim(self) -> None:
        """Take away, durably, what was preallocated in the segment. Raises OSError."""
        if self._file is not None:
            self._file.trim()

    def _records(self, items: list[tuple[int, PreparedOutput]], offset: int) -> bytes:
        """What stands in the segment from `offset` on."""
        buffer, number = bytearray(), self._number
        for sequence, item in items:
            given = item.given
            if given.at is None:
                given.at = (number, offset + len(buffer))
                self._group.written.append(given)
                buffer += payload.pack_record(payload.INPUT, sequence, given.salt, given.body)
            buffer += payload.pack_record(payload.OUTPUT, sequence, item.salt, item.body, at=given.at)
        return bytes(buffer)

    def _shared_input(self, request_id: bytes, given: bytes, digest: bytes) -> PreparedInput:
        # By request, so that two requests with one input can't be told to have it.
        key = (request_id, digest)
        with self._inputs_lock:
            known = self._inputs.get(key)
            if known is not None:
                self._inputs.move_to_end(key)
                return known
        # Not under the lock: compressing lets other threads run, and each would stop at it.
        made = self._make_input(given, digest)
        with self._inputs_lock:
            known = self._inputs.setdefault(key, made)
            while len(self._inputs) > _REMEMBERED_INPUTS:
                self._inputs.popitem(last=False)
            return known

    def _make_input(self, given: bytes, digest: bytes) -> PreparedInput:
        salt = self._salts.draw()
        return PreparedInput(salt, commitment_to(salt, digest), payload.compress(given))

    def _segment_for(self, sequence: int) -> AppendFile:
        """The current segment, or a new one that starts with item `sequence`."""
        if self._file is not None and self._file.size < payload.SEGMENT_BYTES:
            return self._file
        try:
            self.trim()  # only the last segment may have zeros at its end
        except OSError as error:
            raise ShardError(f"cannot end the segment: {reason(error)}", where=self._folder.id) from error
        make_folder(self._folder.payload)
        path = self._folder.segment(self._number + 1)
        remove_file(path)  # what a refused group left; nothing acknowledged lies in a number not yet taken
        file = AppendFile(path, ahead=payload.AHEAD)
        try:
            file.write(payload.segment_head(self._folder.id, sequence))
            file.sync()
            sync_folder(self._folder.payload)
        except BaseException:
            file.close()
            with suppress(OSError):
                remove_file(path)
            raise
        if self._file is not None:
            self._file.close()
        self._file, self._number = file, self._number + 1
        return file
