"""Payload records: inputs, outputs and salts in segment files (FORMAT.md 8.6). Pure."""

from __future__ import annotations

import mmap
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import zstandard

from helix_lineage.errors import ShardError

Buffer = bytes | mmap.mmap

MAGIC = b"helix-payload-1\n"
INPUT = 1
OUTPUT = 2
BODY_ERASED = 1
SALT_ERASED = 2
SEGMENT_BYTES = 64 * 2**20
"""A new segment starts with the first group after this many bytes."""
AHEAD = 2**20
"""Zeros that a writer lays ahead in a segment."""
MAX_BODY_BYTES = 2**30
"""Largest typed value that a record may hold, uncompressed: no decompression bombs."""
_LEVEL = 1
"""Structures take less time and less room than at zstd's usual 3: 73 µs and 6,072 bytes for 1UBI, not 106 and 6,492."""

_STORED = 512
"""A smaller value is a frame of one raw block (RFC 8878, 3.1.1.2): numbers compress by a quarter at best, and take
five times as long, most of it in letting go of the interpreter and in getting it back."""
_ZSTD = 0xFD2FB528


def _stored_head(size: int) -> bytes:
    """Magic number, descriptor of a single segment, content size (from 256 on, less 256), the last block's header."""
    if size < 256:
        return struct.pack("<IBBHB", _ZSTD, 0x20, size, size << 3 | 1, 0)
    return struct.pack("<IBHHB", _ZSTD, 0x60, size - 256, size << 3 | 1, 0)


_STORED_HEADS = tuple(_stored_head(size) for size in range(_STORED))
_STORED_BY_LENGTH = {len(head) + size: head for size, head in enumerate(_STORED_HEADS)}
"""Length of a body → how it begins, if it is of a raw block."""

_HEAD = struct.Struct("<IBBHQIQ32s")
_SHORT_HEAD = struct.Struct("<IBBHQ")
_SEGMENT = struct.Struct("<16s16sQ")
_CRC = struct.Struct("<I")
SEGMENT_HEAD_BYTES = _SEGMENT.size + _CRC.size
RECORD_HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class PayloadRecord:
    """One record of a segment."""

    kind: int
    """INPUT or OUTPUT."""
    sequence: int
    """Of the item; for an input, of the first item that uses it."""
    salt: bytes
    """32 bytes; zero when erased."""
    body: bytes
    """One zstd frame of the typed value; zeros when erased."""
    state: int = 0
    input_segment: int = 0
    input_offset: int = 0
    """Where an output's input lies."""

    def to_bytes(self) -> bytes:
        """The record as it stands in a segment."""
        at = (self.input_segment, self.input_offset)
        return pack_record(self.kind, self.sequence, self.salt, self.body, at=at, state=self.state)

    @property
    def value(self) -> bytes | None:
        """The typed value, or None when erased. Raises ShardError."""
        if self.state & BODY_ERASED:
            return None
        try:
            return decompress(self.body)
        except ShardError as error:
            raise ShardError(f"payload of item {self.sequence}: {error.what}") from error

    def erased(self, salt: bool) -> PayloadRecord:
        """The record without its body and, if asked, without its salt; of the same length."""
        gone = replace(self, body=bytes(len(self.body)), state=self.state | BODY_ERASED)
        return replace(gone, salt=bytes(32), state=gone.state | SALT_ERASED) if salt else gone


def pack_record(
    kind: int, sequence: int, salt: bytes, body: bytes, *, at: tuple[int, int] = (0, 0), state: int = 0
) -> bytes:
    """A record as it stands in a segment; `at` is where an output's input lies: segment and offset."""
    data = _HEAD.pack(len(body), kind, state, 0, sequence, *at, salt) + body
    return data + _CRC.pack(zlib.crc32(data))


class _Compressors(threading.local):
    """A compressor and its opposite a thread: making one costs ten times what a small value does, and each is one's."""

    def __init__(self) -> None:
        self.one = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self.other = zstandard.ZstdDecompressor()


_compressors = _Compressors()


def compress(value: bytes) -> bytes:
    """A body. Raises ShardError when the value is too large."""
    size = len(value)
    if size < _STORED:
        return _STORED_HEADS[size] + value
    if size > MAX_BODY_BYTES:
        raise ShardError(f"a payload has at most {MAX_BODY_BYTES} bytes, not {size}")
    return _compressors.one.compress(value)


def decompress(body: bytes) -> bytes:
    """The value of a body, which is exactly one zstd frame of a size that it tells. Raises ShardError."""
    head = _STORED_BY_LENGTH.get(len(body))
    if head is not None and body.startswith(head):
        return body[len(head) :]  # zstandard reads the same, and takes three times as long
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= MAX_BODY_BYTES:
            raise ShardError(f"the size {size} is out of bounds")
        if size:
            return _compressors.other.decompress(body, allow_extra_data=False)
        # One call says nothing of what follows an empty frame.
        frame = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
        data = frame.decompress(body) + frame.flush()
    except zstandard.ZstdError as error:
        raise ShardError(str(error)) from error
    if not frame.eof or frame.unused_data or data:
        raise ShardError("not exactly one zstd frame")
    return data


def segment_head(shard_id: str, first_sequence: int) -> bytes:
    """The first bytes of a segment."""
    head = _SEGMENT.pack(MAGIC, bytes.fromhex(shard_id), first_sequence)
    return head + _CRC.pack(zlib.crc32(head))


def parse_segment_head(data: bytes, shard_id: str) -> int:
    """The first sequence of the segment. Raises ShardError."""
    if len(data) < SEGMENT_HEAD_BYTES:
        raise ShardError("the segment's head is cut short")
    magic, shard, first = _SEGMENT.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _SEGMENT.size)
    if magic != MAGIC or zlib.crc32(data[: _SEGMENT.size]) != crc:
        raise ShardError("no payload segment of version 1, or its head is damaged")
    if shard.hex() != shard_id:
        raise ShardError(f"the segment belongs to shard {shard.hex()}")
    return int(first)


def parse_record(data: bytes | memoryview, offset: int) -> tuple[PayloadRecord, int]:
    """The record at `offset`, and the offset after it. Raises ShardError."""
    if offset + _HEAD.size > len(data):
        raise ShardError(f"byte {offset}: the payload record is cut short")
    length, kind, state, zero, sequence, segment, input_offset, salt = _HEAD.unpack_from(data, offset)
    end = offset + _HEAD.size + length + _CRC.size
    if end > len(data):
        raise ShardError(f"byte {offset}: the payload record is cut short")
    (crc,) = _CRC.unpack_from(data, end - _CRC.size)
    if zlib.crc32(data[offset : end - _CRC.size]) != crc:
        raise ShardError(f"byte {offset}: the payload record's checksum does not match")
    if kind not in (INPUT, OUTPUT) or zero or state > BODY_ERASED | SALT_ERASED:
        raise ShardError(f"byte {offset}: unknown kind {kind} or state {state} of a payload record")
    body = bytes(data[offset + _HEAD.size : end - _CRC.size])
    record = PayloadRecord(kind, sequence, salt, body, state, segment, input_offset)
    # What is marked as gone must be gone, and what is not marked must not be zero by accident of a tool.
    if (state & BODY_ERASED and any(body)) or (state & SALT_ERASED and any(salt)):
        raise ShardError(f"byte {offset}: a payload record is marked as erased and is not")
    return record, end


def spans(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """`(kind, sequence, offset, offset after it)` of whole records in `data[start:end]`, by their heads, unchecked.

    Ends at zeros, which no record begins with.
    """
    look, around = _SHORT_HEAD.unpack_from, _HEAD.size + _CRC.size
    while start + _HEAD.size <= end:
        length, kind, _, _, sequence = look(data, start)
        after = start + around + length
        if after > end or not (length or kind or sequence):
            return  # being written, or torn; preallocated
        yield kind, sequence, start, after
        start = after


def written(data: bytes) -> int:
    """Where the records of a segment end that only zeros follow; its whole length when something else does."""
    end = SEGMENT_HEAD_BYTES
    for *_, after in spans(data, end, len(data)):
        end = after
    return len(data) if data[end:].strip(b"\0") else end


def parse_span(head: bytes) -> tuple[int, int, int] | None:
    """`(kind, sequence, whole length)` by a record's head, unchecked; None when the head is cut short."""
    if len(head) < _HEAD.size:
        return None
    length, kind, _, _, sequence, _, _, _ = _HEAD.unpack_from(head)
    return kind, sequence, _HEAD.size + length + _CRC.size
