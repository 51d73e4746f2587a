"""The quick look at a shard's payload: does everything hold, or is there anything that needs a closer look?

What is out of the ordinary (damage, a missing record, a commitment that is not met) is not named
here: the answer is then None, and `payload_audit` goes through everything one by one.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from helix_lineage.audit.workers import spread
from helix_lineage.errors import ShardError
from helix_lineage.formats import untrusted
from helix_lineage.shard import payload
from helix_lineage.shard.entries import commitment_to, commitments
from helix_lineage.shard.payload_reader import PayloadReader
from helix_lineage.tlog.layout import MAX_SEGMENT_BYTES, ShardFolder

_PART_BYTES = 16 * 2**20
_HEAD = struct.Struct("<IBBHQIQ32s")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class _Part:
    """A share of a segment, in bytes; it begins and ends before an input record."""

    segment: int
    start: int
    end: int


@dataclass(slots=True)
class _Checked:
    """What a share holds, when all of it holds."""

    sequences: array[int] = field(default_factory=lambda: array("Q"))
    """Of its output records."""
    erased: int = 0


class _OddError(Exception):
    """Something needs a closer look."""


def count_erased(
    folder: ShardFolder, entries: Sequence[bytes], predictions: array[int], *, preallocated: bool = False
) -> int | None:
    """How many payloads were erased, when all others are kept and meet their commitments; None for a closer look.

    Args:
        entries: those of the journal.
        predictions: the sequences of the prediction entries.
        preallocated: zeros may follow the last record; the shard has not ended.
    """
    reader = PayloadReader(folder)
    try:
        numbers = reader.segments()
        parts = [part for at in numbers for part in _cut(folder, at, preallocated=preallocated and at == numbers[-1])]
    except (ShardError, OSError, ValueError):
        return None

    def look(part: _Part) -> _Checked | None:
        try:
            return _PayloadCheck(folder, reader, part, entries).run()
        except (_OddError, ShardError, OSError, ValueError, IndexError, struct.error):
            return None

    seen = spread(look, parts)
    found = array("Q")
    for item in seen:
        if item is None:
            return None
        found.extend(item.sequences)
    return sum(item.erased for item in seen if item is not None) if found == predictions else None


def _cut(folder: ShardFolder, number: int, *, preallocated: bool = False) -> Iterator[_Part]:
    """A segment in shares of about 16 MiB. Raises ShardError."""
    data = untrusted.read(folder.segment(number), limit=MAX_SEGMENT_BYTES)
    payload.parse_segment_head(data, folder.id)
    starts, wanted = [payload.SEGMENT_HEAD_BYTES], _PART_BYTES
    if preallocated:
        data = data[: payload.written(data)]
    if len(data) > _PART_BYTES:
        for kind, _, offset, _ in payload.spans(data, payload.SEGMENT_HEAD_BYTES, len(data)):
            if kind == payload.INPUT and offset >= wanted:
                starts.append(offset)
                wanted = offset + _PART_BYTES
    yield from (_Part(number, start, end) for start, end in pairwise([*starts, len(data)]))


class _PayloadCheck:
    """Goes through a share."""

    def __init__(self, folder: ShardFolder, reader: PayloadReader, part: _Part, entries: Sequence[bytes]) -> None:
        self._reader, self._part, self._entries = reader, part, entries
        self._data = _read(folder.segment(part.segment), part)
        self._inputs: dict[int, bytes | None] = {}
        """Offset → commitment of the input there; None when it was erased."""
        self._used: set[int] = set()
        self._seen = _Checked()

    def run(self) -> _Checked:
        """Raises _OddError or ShardError for what needs a closer look."""
        data, view, position, start = self._data, memoryview(self._data), 0, self._part.start
        while position < len(data):
            length, kind, state, zero, sequence, segment, offset, salt = _HEAD.unpack_from(data, position)
            body, end = position + _HEAD.size, position + _HEAD.size + length + _CRC.size
            if end > len(data) or zero or zlib.crc32(view[position : end - 4]) != _CRC.unpack_from(data, end - 4)[0]:
                raise _OddError
            made = None
            if state:
                payload.parse_record(data, position)  # what is marked as gone is gone
            else:
                made = commitment_to(salt, hashlib.sha256(payload.decompress(data[body : end - 4])).digest())
            if kind == payload.INPUT:
                self._inputs[start + position] = made
            elif kind == payload.OUTPUT:
                self._check(sequence, made, segment, offset)
            else:
                raise _OddError
            position = end
        if len(self._used) != len(self._inputs):
            raise _OddError  # an input that no item uses
        return self._seen

    def _check(self, sequence: int, made: bytes | None, segment: int, offset: int) -> None:
        """An output, and the input that it names, against the entry."""
        wanted = commitments(self._entries[sequence])
        if wanted is None:
            raise _OddError
        if segment == self._part.segment and offset in self._inputs:
            given = self._inputs[offset]
            self._used.add(offset)
        else:
            given = self._elsewhere(segment, offset)
        for found, expected in ((given, wanted[0]), (made, wanted[1])):
            if found is None:
                self._seen.erased += 1
            elif found != expected:
                raise _OddError
        self._seen.sequences.append(sequence)

    def _elsewhere(self, segment: int, offset: int) -> bytes | None:
        """The commitment of an input in another share: an earlier part of the request was written there."""
        record = self._reader.record(segment, offset, payload.INPUT).record
        value = None if record.state else record.value
        return None if value is None else commitment_to(record.salt, hashlib.sha256(value).digest())


def _read(path: Path, part: _Part) -> bytes:
    with untrusted.opened(path, limit=MAX_SEGMENT_BYTES) as (fd, _):
        return os.pread(fd, part.end - part.start, part.start)
