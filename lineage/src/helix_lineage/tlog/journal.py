"""The journal: frames of entries and of the checkpoints that cover them (FORMAT.md 8.5). Pure."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import IO

MAGIC = b"helix-journal-1\n"
_LONGEST = 2**20  # an entry has at most 65,535 bytes, a checkpoint's note less
AHEAD = 256 * 1024
"""Zeros that a writer lays ahead."""
ENTRY = 1
CHECKPOINT = 2
MAX_ENTRY_BYTES = 65535
"""An entry bundle gives an entry's length in 16 bits."""

_HEAD = struct.Struct("<IB")
_CRC = struct.Struct("<I")


def frame(kind: int, data: bytes) -> bytes:
    """One frame."""
    body = _HEAD.pack(len(data), kind) + data
    return body + _CRC.pack(zlib.crc32(body))


@dataclass(frozen=True, slots=True)
class Covered:
    """A checkpoint frame."""

    size: int
    """Entry frames before it."""
    note: bytes
    """The signed note."""
    end: int
    """Offset of the first byte after the frame."""


@dataclass(slots=True)
class Journal:
    """What could be read of a journal, up to the first damaged frame."""

    entries: list[bytes] = field(default_factory=list)
    checkpoints: list[Covered] = field(default_factory=list)
    length: int = 0
    """Bytes of the file."""
    preallocated: int = 0
    """Zeros at its end: a writer that lives lays some ahead of what it writes."""
    damage: str | None = None
    """Why reading stopped before the end, with the offset."""

    @property
    def covered(self) -> int:
        """Entries under the last checkpoint: those that may have been acknowledged."""
        return self.checkpoints[-1].size if self.checkpoints else 0

    @property
    def intact(self) -> int:
        """Offset after the last checkpoint."""
        return self.checkpoints[-1].end if self.checkpoints else 0

    @property
    def tail(self) -> int:
        """Bytes after the last checkpoint, without the zeros at the end."""
        return self.length - self.preallocated - self.intact


def parse(data: bytes) -> Journal:
    """Read frames until the end, the zeros at the end, or the first damage. Never raises."""
    journal = Journal(length=len(data))
    if not data.startswith(MAGIC):
        journal.damage = "byte 0: no journal of version 1 starts like this"
        return journal
    position = _parse_plain(data, journal)
    written = position + len(data[position:].rstrip(b"\0"))
    journal.preallocated = len(data) - written
    if position < written:
        journal.damage = f"byte {position} (entry {len(journal.entries)}): {_damage(data, position)}"
    return journal


def tail(file: IO[bytes], first: int) -> list[bytes]:
    """The entries from number `first` on that a checkpoint covers. Reads frame by frame, up to the first damage."""
    kept: list[bytes] = []
    number = covered = 0
    whole = file.read(len(MAGIC)) == MAGIC
    while whole and len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, kind = _HEAD.unpack(head)
        data = file.read(length + _CRC.size) if length <= _LONGEST else b""
        body, checksum = head + data[:length], data[length:]
        whole = len(checksum) == _CRC.size and zlib.crc32(body) == _CRC.unpack(checksum)[0]
        if whole and kind == ENTRY:
            number += 1
            kept += [data[:length]] if number > first else []
        elif whole and kind == CHECKPOINT:
            covered = number
    return kept[: max(0, covered - first)]


def _parse_plain(data: bytes, journal: Journal) -> int:
    """Read frames for as long as they are as they should be; gives the offset of the first that needs a closer look."""
    position, size, view, entries = len(MAGIC), len(data), memoryview(data), journal.entries
    look, checksum, crc32, around = _HEAD.unpack_from, _CRC.unpack_from, zlib.crc32, _HEAD.size + _CRC.size
    while position + _HEAD.size <= size:
        length, kind = look(data, position)
        end = position + around + length
        if end > size or crc32(view[position : end - 4]) != checksum(data, end - 4)[0]:
            return position
        if kind == ENTRY and length <= MAX_ENTRY_BYTES:
            entries.append(data[position + 5 : end - 4])
        elif kind == CHECKPOINT:
            journal.checkpoints.append(Covered(len(entries), data[position + 5 : end - 4], end))
        else:
            return position
        position = end
    return position


def _damage(data: bytes, position: int) -> str:
    """What is wrong with the frame at `position`."""
    if position + _HEAD.size > len(data):
        return "the frame is cut short"
    length, kind = _HEAD.unpack_from(data, position)
    end = position + _HEAD.size + length + _CRC.size
    if end > len(data):
        return "the frame is cut short"
    (crc,) = _CRC.unpack_from(data, end - _CRC.size)
    if zlib.crc32(memoryview(data)[position : end - _CRC.size]) != crc:
        return "the frame's checksum does not match"
    if kind == ENTRY:
        return f"the entry has {length} bytes, more than {MAX_ENTRY_BYTES}"
    return f"unknown frame type {kind}"
