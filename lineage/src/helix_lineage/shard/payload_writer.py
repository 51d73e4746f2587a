"""Writes payload records: prepared by the callers' threads, written by the committer's."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from helix_lineage.errors import ShardError
from helix_lineage.shard import payload
from helix_lineage.shard.entries import commitment
from helix_lineage.shard.files import AppendFile, make_folder, remove_file, sync_folder
from helix_lineage.shard.layout import ShardFolder

_REMEMBERED_INPUTS = 256


@dataclass(slots=True)
class PreparedInput:
    """A request's input, stored once for all its items."""

    salt: bytes
    commitment: bytes
    body: bytes
    at: tuple[int, int] | None = None
    """Segment and offset, once written; only the committer touches it."""


@dataclass(frozen=True, slots=True)
class PreparedOutput:
    """An item's output and its request's input."""

    given: PreparedInput
    salt: bytes
    commitment: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """A place to go back to."""

    segment: int
    size: int


@dataclass(slots=True)
class _Group:
    written: list[PreparedInput] = field(default_factory=list)


class PayloadWriter:
    """The segments of one shard. `prepare` may be called from any thread, the rest from one."""

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._inputs: OrderedDict[tuple[bytes, bytes], PreparedInput] = OrderedDict()
        self._inputs_lock = threading.Lock()
        self._group = _Group()
        self._number = -1
        self._file: AppendFile | None = None

    def prepare(self, request_id: bytes, given: bytes, answer: bytes) -> PreparedOutput:
        """Salt, commit to and compress an item's input and output. Raises ShardError for what is too large."""
        salt = os.urandom(32)
        shared = self._shared_input(request_id, given)
        return PreparedOutput(shared, salt, commitment(salt, answer), payload.compress(answer))

    def write(self, items: Iterable[tuple[int, PreparedOutput]]) -> Mark:
        """Write `(sequence, item)`s; gives the place that `undo` goes back to.

        Raises OSError when nothing of it was kept, ShardError when that can't be said.
        """
        items = list(items)
        self._group = _Group()
        file = self._segment_for(items[0][0])
        mark = Mark(self._number, file.size)
        try:
            buffer = bytearray()
            for sequence, item in items:
                if item.given.at is None:
                    item.given.at = (self._number, file.size + len(buffer))
                    self._group.written.append(item.given)
                    record = payload.PayloadRecord(payload.INPUT, sequence, item.given.salt, item.given.body)
                    buffer += record.to_bytes()
                segment, offset = item.given.at
                buffer += payload.PayloadRecord(
                    payload.OUTPUT, sequence, item.salt, item.body, 0, segment, offset
                ).to_bytes()
            file.write(bytes(buffer))
        except BaseException as error:
            try:
                self.undo(mark)
            except OSError as worse:
                raise ShardError(f"cannot cut the payload back: {worse}", where=self._folder.id) from error
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

    def undo(self, mark: Mark) -> None:
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

    def _shared_input(self, request_id: bytes, given: bytes) -> PreparedInput:
        # By request, so that two requests with one input can't be told to have it.
        key = (request_id, hashlib.sha256(given).digest())
        with self._inputs_lock:
            known = self._inputs.get(key)
            if known is None:
                salt = os.urandom(32)
                known = PreparedInput(salt, commitment(salt, given), payload.compress(given))
                self._inputs[key] = known
                while len(self._inputs) > _REMEMBERED_INPUTS:
                    self._inputs.popitem(last=False)
            self._inputs.move_to_end(key)
            return known

    def _segment_for(self, sequence: int) -> AppendFile:
        """The current segment, or a new one that starts with item `sequence`."""
        if self._file is not None and self._file.size < payload.SEGMENT_BYTES:
            return self._file
        make_folder(self._folder.payload)
        path = self._folder.segment(self._number + 1)
        remove_file(path)  # what a refused group left; nothing acknowledged lies in a number not yet taken
        file = AppendFile(path)
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
