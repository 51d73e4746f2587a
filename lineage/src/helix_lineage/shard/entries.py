"""The entries of a shard: deterministic CBOR arrays `[version, kind, …]` (FORMAT.md 8.2). Pure.

>>> entry = Close(at_ns=5)
>>> decode(entry.to_bytes()) == entry
True
>>> decode(bytes.fromhex("8302186305")).kind  # a kind that this version does not know is kept
99
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cbor2

from helix_lineage.errors import ShardError

VERSION = 1
MAX_ENTRY_BYTES = 65535
"""An entry bundle gives an entry's length in 16 bits."""
MAX_PREDICTION_BYTES = 150
LANES = ("strict", "fast")

_U32 = 2**32
_U64 = 2**64


def dump(value: object) -> bytes:
    """Deterministic CBOR of arrays, unsigned integers, bytes, text, booleans and None."""
    # cbor2's canonical form sorts map keys by RFC 7049's rule, not RFC 8949's: entries hold no maps.
    return cbor2.dumps(value, canonical=True)


def load_array(data: bytes) -> list[Any]:
    """Read one CBOR array, nothing before or after it. Raises ShardError."""
    try:
        value = cbor2.loads(data)
        again = dump(value)
    except Exception as error:  # cbor2 raises many kinds; all mean: not our encoding
        raise ShardError(f"not a CBOR entry: {error}") from error
    if not isinstance(value, list) or again != data:
        raise ShardError("an entry is one CBOR array in deterministic form")
    return value


def uint(value: object, name: str, below: int = _U64) -> int:
    """`value`, if it is an unsigned integer below `below`. Raises ShardError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
        raise ShardError(f"{name} is not an unsigned integer below {below}: {value!r}")
    return value


def optional_uint(value: object, name: str, below: int = _U64) -> int | None:
    """`value`, if it is None or an unsigned integer below `below`."""
    return None if value is None else uint(value, name, below)


def raw(value: object, name: str, size: int) -> bytes:
    """`value`, if it is a byte string of that size. Raises ShardError."""
    if not isinstance(value, bytes) or len(value) != size:
        raise ShardError(f"{name} is not a byte string of {size} bytes")
    return value


def commitment(salt: bytes, value: bytes) -> bytes:
    """`SHA-256(salt ‖ SHA-256(value))`, 32 bytes: what the log holds of an input or an output."""
    return commitment_to(salt, hashlib.sha256(value).digest())


def commitment_to(salt: bytes, digest: bytes) -> bytes:
    """The commitment to a value whose SHA-256 is known."""
    return hashlib.sha256(salt + digest).digest()


@dataclass(frozen=True, slots=True)
class PredictionEntry:
    """One item of one request."""

    KIND: ClassVar[int] = 1

    request_id: bytes
    """16 bytes."""
    index: int
    """Which of the request's items this is, from 0."""
    count: int
    """How many items the request has."""
    input_commitment: bytes
    output_commitment: bytes
    seed: int | None
    """The request's root seed."""
    lane: str
    """`strict` or `fast`."""
    batch_plan: int | None
    """Sequence of the batch plan's entry, for the fast lane."""
    row: int | None
    """Row in that batch."""
    started_ns: int
    finished_ns: int

    def __post_init__(self) -> None:
        plain = self.batch_plan is self.row is None and _plain(
            self.request_id, self.index, self.count, self.input_commitment, self.output_commitment, self.seed,
            self.lane, self.started_ns, self.finished_ns,
        )  # fmt: skip
        if not plain:
            self._check()

    def _check(self) -> None:
        raw(self.request_id, "request id", 16)
        raw(self.input_commitment, "input commitment", 32)
        raw(self.output_commitment, "output commitment", 32)
        uint(self.index, "index", _U32)
        uint(self.count, "count", _U32)
        if self.index >= self.count:
            raise ShardError(f"item {self.index} of a request of {self.count}")
        optional_uint(self.seed, "seed")
        if self.lane not in LANES:
            raise ShardError(f"unknown lane {self.lane!r}; lanes are {LANES}")
        optional_uint(self.batch_plan, "batch plan")
        optional_uint(self.row, "row", _U32)
        uint(self.started_ns, "start time")
        uint(self.finished_ns, "end time")

    def to_bytes(self) -> bytes:
        """The entry."""
        fields = [
            self.request_id, self.index, self.count, self.input_commitment, self.output_commitment, self.seed,
            LANES.index(self.lane), self.batch_plan, self.row, self.started_ns, self.finished_ns,
        ]  # fmt: skip
        return dump([VERSION, self.KIND, *fields])

    @classmethod
    def from_fields(cls, fields: Sequence[Any]) -> PredictionEntry:
        """The entry of these fields after version and kind. Raises TypeError, ValueError or ShardError."""
        request_id, index, count, given, answer, seed, lane, plan, row, started, finished = fields
        name = LANES[uint(lane, "lane", len(LANES))]
        return cls(request_id, index, count, given, answer, seed, name, plan, row, started, finished)


def prediction_bytes(  # noqa: PLR0917  # called for every item: names would be passed each time
    request_id: bytes, index: int, count: int, input_commitment: bytes, output_commitment: bytes, seed: int | None,
    lane: str, started_ns: int, finished_ns: int,
) -> bytes:  # fmt: skip
    """The entry of an item outside any batch plan: `PredictionEntry(…).to_bytes()` without the object.

    Raises ShardError.
    """
    if not _plain(request_id, index, count, input_commitment, output_commitment, seed, lane, started_ns, finished_ns):
        # Says what is wrong, or knows better.
        return PredictionEntry(
            request_id, index, count, input_commitment, output_commitment, seed, lane, None, None, started_ns,
            finished_ns,
        ).to_bytes()  # fmt: skip
    # Without maps and floats, cbor2's usual form is the canonical one, and takes two thirds of the time.
    return cbor2.dumps([
        VERSION, PredictionEntry.KIND, request_id, index, count, input_commitment, output_commitment, seed,
        LANES.index(lane), None, None, started_ns, finished_ns,
    ])  # fmt: skip


def _plain(  # noqa: PLR0917  # as above
    request_id: bytes, index: int, count: int, given: bytes, answer: bytes, seed: int | None, lane: str, started: int,
    finished: int,
) -> bool:  # fmt: skip
    """Is this what nearly every entry is? One look instead of eleven; what is not goes the long way."""
    return (
        type(index) is type(count) is type(started) is type(finished) is int
        and 0 <= index < count < _U32
        and 0 <= started < _U64
        and 0 <= finished < _U64
        and (seed is None or (type(seed) is int and 0 <= seed < _U64))
        and type(request_id) is type(given) is type(answer) is bytes
        and len(request_id) == 16
        and len(given) == len(answer) == 32
        and lane in LANES
    )


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which items the fast lane ran together, in row order."""

    KIND: ClassVar[int] = 2

    width: int
    """Rows that the batch was padded to."""
    rows: tuple[tuple[bytes, int], ...]
    """`(request id, item index)` of each row."""
    at_ns: int

    def __post_init__(self) -> None:
        uint(self.width, "width", _U32)
        uint(self.at_ns, "time")
        if len(self.rows) > self.width:
            raise ShardError(f"{len(self.rows)} rows in a batch of width {self.width}")
        for request_id, index in self.rows:
            raw(request_id, "request id", 16)
            uint(index, "index", _U32)

    def to_bytes(self) -> bytes:
        """The entry."""
        return dump([VERSION, self.KIND, self.width, [list(row) for row in self.rows], self.at_ns])

    @classmethod
    def from_fields(cls, fields: Sequence[Any]) -> BatchPlan:
        """The entry of these fields after version and kind. Raises TypeError, ValueError or ShardError."""
        width, rows, at_ns = fields
        return cls(width, tuple((request_id, index) for request_id, index in rows), at_ns)


@dataclass(frozen=True, slots=True)
class Close:
    """The last entry of a shard that was shut down in order."""

    KIND: ClassVar[int] = 3

    at_ns: int

    def __post_init__(self) -> None:
        uint(self.at_ns, "time")

    def to_bytes(self) -> bytes:
        """The entry."""
        return dump([VERSION, self.KIND, self.at_ns])

    @classmethod
    def from_fields(cls, fields: Sequence[Any]) -> Close:
        """The entry of these fields after version and kind. Raises TypeError, ValueError or ShardError."""
        (at_ns,) = fields
        return cls(at_ns)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a later process found of a shard whose process died."""

    KIND: ClassVar[int] = 4

    shard: bytes
    """The dead shard's id, 16 bytes."""
    size: int
    """Entries under its last intact checkpoint."""
    root: bytes
    """Root of its tree at that size."""
    torn_bytes: int
    """Bytes of unfinished groups that were cut off its journal."""
    at_ns: int

    def __post_init__(self) -> None:
        raw(self.shard, "shard id", 16)
        uint(self.size, "size")
        raw(self.root, "root", 32)
        uint(self.torn_bytes, "torn bytes")
        uint(self.at_ns, "time")

    def to_bytes(self) -> bytes:
        """The entry."""
        return dump([VERSION, self.KIND, self.shard, self.size, self.root, self.torn_bytes, self.at_ns])

    @classmethod
    def from_fields(cls, fields: Sequence[Any]) -> Recovered:
        """The entry of these fields after version and kind. Raises TypeError, ValueError or ShardError."""
        shard, size, root, torn_bytes, at_ns = fields
        return cls(shard, size, root, torn_bytes, at_ns)


@dataclass(frozen=True, slots=True)
class Unknown:
    """An entry of a kind or version that this code does not know: kept, and not interpreted."""

    version: int
    kind: int
    data: bytes
    """The whole entry."""

    def to_bytes(self) -> bytes:
        """The entry."""
        return self.data


Body = PredictionEntry | BatchPlan | Close | Recovered | Unknown
_KINDS: dict[int, type[PredictionEntry] | type[BatchPlan] | type[Close] | type[Recovered]] = {
    kind.KIND: kind for kind in (PredictionEntry, BatchPlan, Close, Recovered)
}


_UINT64 = rb"[\x00-\x17]|\x18[\x18-\xff]|\x19(?!\x00)..|\x1a(?!\x00\x00)....|\x1b(?!\x00\x00\x00\x00)........"
_UINT32 = rb"[\x00-\x17]|\x18[\x18-\xff]|\x19(?!\x00)..|\x1a(?!\x00\x00)...."
_PREDICTION = re.compile(
    rb"\x8d\x01\x01\x50.{16}(%(u32)s)(%(u32)s)\x58\x20(.{32})\x58\x20(.{32})(?:\xf6|%(u64)s)[\x00\x01]"
    rb"(?:\xf6|%(u64)s)(?:\xf6|%(u32)s)(?:%(u64)s)(?:%(u64)s)" % {b"u32": _UINT32, b"u64": _UINT64},
    re.DOTALL,
)
"""Exactly the prediction entries of version 1, but for the index, which must be below the count."""


def commitments(data: bytes) -> tuple[bytes, bytes] | None:
    """`(input, output)` commitments of what `decode` takes for a prediction entry, else None; five times faster."""
    found = _PREDICTION.fullmatch(data)
    # Deterministic CBOR sorts unsigned integers as bytes: a longer one starts with a larger byte.
    return (found[3], found[4]) if found is not None and found[1] < found[2] else None


def is_close(data: bytes) -> bool:
    """Is this a close entry?"""
    try:
        return isinstance(decode(data), Close)
    except ShardError:
        return False


def version_and_kind(data: bytes) -> tuple[int, int]:
    """The first two fields of an entry, known or not. Raises ShardError."""
    try:
        value = cbor2.loads(data)
    except Exception as error:
        raise ShardError(f"not a CBOR entry: {error}") from error
    if not isinstance(value, list) or len(value) < 2:
        raise ShardError("an entry is an array [version, kind, …]")
    return uint(value[0], "version"), uint(value[1], "kind")


def decode(data: bytes) -> Body:
    """Read an entry after the header. Raises ShardError; keeps unknown kinds and versions."""
    version, kind = version_and_kind(data)
    known = _KINDS.get(kind) if version == VERSION else None
    if known is None:
        return Unknown(version, kind, data)
    fields = load_array(data)[2:]
    try:
        entry = known.from_fields(fields)
    except (TypeError, ValueError) as error:
        raise ShardError(f"an entry of kind {kind} has other fields: {error}") from error
    if entry.to_bytes() != data:
        raise ShardError(f"the entry of kind {kind} is not in its one form")
    return entry
