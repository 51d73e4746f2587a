"""Reads payload records, and erases them in place."""

from __future__ import annotations

import mmap
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from helix_lineage.errors import ShardError, explaining, reason
from helix_lineage.formats import untrusted
from helix_lineage.shard import payload
from helix_lineage.tlog.disk import overwrite
from helix_lineage.tlog.layout import MAX_SEGMENT_BYTES, ShardFolder


@dataclass(frozen=True, slots=True)
class Payload:
    """What is kept of one item."""

    input: bytes | None
    """The request's typed input; None when erased."""
    output: bytes | None
    """The item's typed answer; None when erased."""
    input_salt: bytes | None
    """32 bytes; None when erased."""
    output_salt: bytes | None


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """A record in a segment."""

    segment: int
    offset: int
    record: payload.PayloadRecord


class PayloadReader:
    """The payload of one shard. Sees what was written until the moment of asking."""

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._outputs: dict[int, tuple[int, array[int], array[int]]] = {}
        """Segment → bytes indexed, sequences, offsets of its output records."""
        self._firsts: dict[int, int] = {}
        """Segment → first sequence, by its head; a whole head never changes."""

    def read(self, sequence: int) -> Payload:
        """What is kept of item `sequence`. Raises ShardError when it is absent or damaged."""
        answer = self.output(sequence).record
        given = self.record(answer.input_segment, answer.input_offset, payload.INPUT).record
        return Payload(given.value, answer.value, _salt(given), _salt(answer))

    def output(self, sequence: int) -> RecordPosition:
        """The output record of item `sequence`. Raises ShardError."""
        for number in self._candidates(sequence):
            sequences, offsets = self._index(number, sequence)
            at = bisect_left(sequences, sequence)
            if at < len(sequences) and sequences[at] == sequence:
                return self.record(number, offsets[at], payload.OUTPUT)
        raise ShardError(f"no payload is kept of item {sequence}", where=self._folder.id)

    def record(self, segment: int, offset: int, kind: int) -> RecordPosition:
        """The record of that kind at a place. Raises ShardError."""
        path = self._folder.segment(segment)
        try:
            with untrusted.opened(path, limit=MAX_SEGMENT_BYTES) as (fd, end):
                if offset >= end:  # of 64 bits, and the system's offsets have 63
                    raise ShardError(f"the segment has {end} bytes")
                span = payload.parse_span(os.pread(fd, payload.RECORD_HEAD_BYTES, offset))
                # A damaged length must not make us ask for gigabytes.
                size = min(span[2] if span else 0, end - offset)
                record, _ = payload.parse_record(os.pread(fd, size, offset), 0)
        except OSError as error:
            raise ShardError(f"cannot read the payload: {error.strerror}", where=str(path)) from error
        except ShardError as error:
            raise ShardError(f"offset {offset}: {error.what}", where=str(path)) from error
        if record.kind != kind:
            raise ShardError(f"offset {offset}: the payload record is of kind {record.kind}", where=str(path))
        return RecordPosition(segment, offset, record)

    def scan(self, segment: int, *, preallocated: bool = False) -> Iterator[RecordPosition]:
        """Every record of a segment, checked. Raises ShardError at the first damage.

        Args:
            preallocated: zeros may follow the last record; the shard's writer lays some ahead of what it writes.
        """
        path = self._folder.segment(segment)
        with explaining(ShardError, "cannot read the payload", where=str(path)):
            data = untrusted.read(path, limit=MAX_SEGMENT_BYTES)
        try:
            payload.parse_segment_head(data, self._folder.id)
            position, size = payload.SEGMENT_HEAD_BYTES, payload.written(data) if preallocated else len(data)
            while position < size:
                record, end = payload.parse_record(memoryview(data), position)
                yield RecordPosition(segment, position, record)
                position = end
        except ShardError as error:
            raise ShardError(error.what, where=str(path)) from error

    def segments(self) -> list[int]:
        """The numbers of the segments that are there."""
        return self._folder.segment_numbers()

    def _candidates(self, sequence: int) -> Iterator[int]:
        """The segment whose first sequence is the last one not after `sequence`."""
        numbers = self.segments()
        for number in reversed(numbers):
            try:
                first = self._firsts[number] if number in self._firsts else self._read_first(number)
            except OSError as error:
                where = str(self._folder.segment(number))
                raise ShardError(f"cannot read the payload: {error.strerror}", where=where) from error
            except ShardError:
                if number == numbers[-1]:
                    continue  # being made, or torn before it held anything: what is asked for may lie before it
                raise
            if first <= sequence:
                yield number
                return

    def _read_first(self, number: int) -> int:
        with untrusted.opened(self._folder.segment(number), limit=MAX_SEGMENT_BYTES) as (fd, _):
            head = os.pread(fd, payload.SEGMENT_HEAD_BYTES, 0)
        self._firsts[number] = payload.parse_segment_head(head, self._folder.id)
        return self._firsts[number]

    def _index(self, number: int, until: int) -> tuple[array[int], array[int]]:
        """Sequences and offsets of a segment's outputs up to item `until`; continued from where it was.

        Not further: what follows the last item that anybody knows of may be half written.
        """
        done, sequences, offsets = self._outputs.get(number, (payload.SEGMENT_HEAD_BYTES, array("Q"), array("Q")))
        try:
            found = self._continued(number, until, done, sequences, offsets)
        except (OSError, ValueError) as error:
            raise ShardError(f"cannot read the payload: {reason(error)}", where=self._folder.id) from error
        self._outputs[number] = found
        return found[1:]

    def _continued(
        self, number: int, until: int, done: int, sequences: array[int], offsets: array[int]
    ) -> tuple[int, array[int], array[int]]:
        with untrusted.opened(self._folder.segment(number), limit=MAX_SEGMENT_BYTES) as (fd, size):
            if size < done:  # cut by a recovery
                done, sequences, offsets = payload.SEGMENT_HEAD_BYTES, array("Q"), array("Q")
            if size > done and not (sequences and sequences[-1] >= until):
                # As long as it is now: its writer may just have taken zeros away.
                with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
                    for kind, sequence, offset, after in payload.spans(data, done, len(data)):
                        if kind == payload.OUTPUT:
                            sequences.append(sequence)
                            offsets.append(offset)
                        done = after
                        if kind == payload.OUTPUT and sequence >= until:
                            break
        return done, sequences, offsets


def erase(folder: ShardFolder, sequence: int, *, link: bool = False) -> None:
    """Overwrite item `sequence`'s output with zeros; with `link`, its input and both salts too.

    An input is shared by all items of its request: with `link`, none of them can be replayed
    any more, and nobody can tell what they were. Raises ShardError.
    """
    with explaining(ShardError, "cannot erase the payload", where=str(folder.payload)):
        untrusted.check_folder(folder.payload)
    reader = PayloadReader(folder)
    place = reader.output(sequence)
    places = [place]
    if link:
        places.append(reader.record(place.record.input_segment, place.record.input_offset, payload.INPUT))
    try:
        for item in places:
            overwrite(folder.segment(item.segment), item.record.erased(salt=link).to_bytes(), item.offset)
    except OSError as error:
        raise ShardError(f"cannot erase the payload: {reason(error)}", where=folder.id) from error


def _salt(record: payload.PayloadRecord) -> bytes | None:
    return None if record.state & payload.SALT_ERASED else record.salt
