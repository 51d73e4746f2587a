"""The directory's requests and entries: deterministic CBOR arrays (FORMAT.md 11). Pure.

An entry is `[1, kind, time, …body]`, where the body is the request's, so that whoever reads the
log can check again all that the directory checked. Only a statement's bundle lies beside it,
under the digest that the entry holds.

>>> taken = Registration(header=b"h", note=b"n").entry(time_ns=5)
>>> decode(taken)
(5, Registration(header=b'h', note=b'n'))
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from helix_lineage.errors import DirectoryError, ShardError
from helix_lineage.shard.entries import MAX_ENTRY_BYTES, VERSION, dump, load_array, raw, uint

MAX_PROOF = 64
"""A tree of fewer than 2^63 entries has no longer proof."""
MAX_BUNDLE_BYTES = 4 * 2**20


class EntryBody:
    """What a request and the entry made of it have in common."""

    KIND: ClassVar[int]

    def fields(self) -> list[Any]:
        """The CBOR array of the request."""
        raise NotImplementedError

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Self:
        """Of the fields that `fields` gave. Raises ValueError or DirectoryError."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The request's body."""
        return dump(self.fields())

    def entry(self, time_ns: int) -> bytes:
        """The entry that the directory makes of it. Raises DirectoryError when it is too long."""
        data = dump([VERSION, self.KIND, time_ns, *self.fields()])
        if len(data) > MAX_ENTRY_BYTES:
            raise DirectoryError(f"the entry would have {len(data)} bytes, more than {MAX_ENTRY_BYTES}")
        return data


@dataclass(frozen=True, slots=True)
class Registration(EntryBody):
    """A shard's header, before the shard is used."""

    KIND: ClassVar[int] = 16

    header: bytes
    """Entry 0 of the shard."""
    note: bytes
    """The shard's checkpoint of size 1."""

    def fields(self) -> list[Any]:
        """The CBOR array of the request."""
        return [self.header, self.note]

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Self:
        """Of these fields. Raises ValueError or DirectoryError."""
        header, note = fields
        return cls(_bytes(header, "header"), _bytes(note, "checkpoint"))


@dataclass(frozen=True, slots=True)
class Advance(EntryBody):
    """A shard's newer checkpoint."""

    KIND: ClassVar[int] = 17

    shard: str
    """32 hex digits."""
    note: bytes
    consistency: tuple[bytes, ...]
    """From the last checkpoint that the directory took."""

    def fields(self) -> list[Any]:
        """The CBOR array of the request."""
        return [bytes.fromhex(self.shard), self.note, list(self.consistency)]

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Self:
        """Of these fields. Raises ValueError or DirectoryError."""
        shard, note, consistency = fields
        return cls(_shard(shard), _bytes(note, "checkpoint"), proof(consistency))


@dataclass(frozen=True, slots=True)
class Ending(EntryBody):
    """A shard's last checkpoint, and the close entry under it."""

    KIND: ClassVar[int] = 18

    shard: str
    """32 hex digits."""
    note: bytes
    consistency: tuple[bytes, ...]
    close: bytes
    """The shard's last entry."""
    inclusion: tuple[bytes, ...]

    def fields(self) -> list[Any]:
        """The CBOR array of the request."""
        return [bytes.fromhex(self.shard), self.note, list(self.consistency), self.close, list(self.inclusion)]

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Self:
        """Of these fields. Raises ValueError or DirectoryError."""
        shard, note, consistency, close, inclusion = fields
        note, close = _bytes(note, "checkpoint"), _bytes(close, "close entry")
        return cls(_shard(shard), note, proof(consistency), close, proof(inclusion))


@dataclass(frozen=True, slots=True)
class StatementEntry(EntryBody):
    """A signed release, promotion or revocation; the bundle lies beside the log."""

    KIND: ClassVar[int] = 19

    predicate_type: str
    digest: bytes
    """SHA-256 of the bundle, raw."""

    def fields(self) -> list[Any]:
        """The fields of the entry; the request is the bundle itself."""
        return [self.predicate_type, self.digest]

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Self:
        """Of these fields. Raises ValueError or DirectoryError."""
        predicate_type, digest = fields
        if not isinstance(predicate_type, str):
            raise DirectoryError("a statement's predicate type is a text")
        return cls(predicate_type, _sized(digest, "bundle's digest", 32))


Entry = Registration | Advance | Ending | StatementEntry
E = TypeVar("E", bound=EntryBody)
_KINDS: dict[int, type[Registration] | type[Advance] | type[Ending] | type[StatementEntry]] = {
    kind.KIND: kind for kind in (Registration, Advance, Ending, StatementEntry)
}


def decode(data: bytes) -> tuple[int, Entry]:
    """`(time, body)` of an entry of the directory. Raises DirectoryError."""
    fields = _array(data)
    if len(fields) < 3 or fields[0] != VERSION or type(fields[1]) is not int or fields[1] not in _KINDS:
        raise DirectoryError(f"no directory's entry of version {VERSION} starts with {fields[:2]}")
    time_ns = _uint(fields[2], "time")
    return time_ns, _read(_KINDS[fields[1]], fields[3:])


def decode_registration(body: bytes) -> Registration:
    """The request `POST /v1/shards`. Raises DirectoryError."""
    return _read(Registration, _array(body))


def decode_advance(body: bytes) -> Advance:
    """The request `POST /v1/shards/<id>/checkpoints`. Raises DirectoryError."""
    return _read(Advance, _array(body))


def decode_ending(body: bytes) -> Ending:
    """The request `POST /v1/shards/<id>/close`. Raises DirectoryError."""
    return _read(Ending, _array(body))


def digest_of(bundle: bytes) -> bytes:
    """The raw digest that names a bundle."""
    return hashlib.sha256(bundle).digest()


def proof(value: object) -> tuple[bytes, ...]:
    """A Merkle proof: an array of hashes. Raises DirectoryError."""
    if not isinstance(value, list) or len(value) > MAX_PROOF:
        raise DirectoryError(f"a proof is an array of at most {MAX_PROOF} hashes")
    return tuple(_sized(node, "hash of the proof", 32) for node in value)


def _read(kind: type[E], fields: Sequence[Any]) -> E:
    try:
        return kind.of(fields)
    except ValueError as error:  # another number of fields
        raise DirectoryError(f"{kind.__name__.lower()}: other fields: {error}") from error


def _array(data: bytes) -> list[Any]:
    try:
        return load_array(data)
    except ShardError as error:
        raise DirectoryError(error.what) from error


def _uint(value: object, name: str) -> int:
    try:
        return uint(value, name)
    except ShardError as error:
        raise DirectoryError(error.what) from error


def _sized(value: object, name: str, size: int) -> bytes:
    try:
        return raw(value, name, size)
    except ShardError as error:
        raise DirectoryError(error.what) from error


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise DirectoryError(f"{name} is not a byte string")
    return value


def _shard(value: object) -> str:
    return _sized(value, "shard id", 16).hex()
