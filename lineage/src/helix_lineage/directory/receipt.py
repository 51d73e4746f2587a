"""What the directory answers, and how a client checks it. Pure.

A directory that answers about another entry, shows a log that does not hold this one, or one
that does not extend the last that this client saw, is named by a TrustError.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from helix_lineage.attestations.trust import ED25519, Trust
from helix_lineage.directory.entries import Ending, Entry, Registration, StatementEntry, decode, proof
from helix_lineage.errors import DirectoryError, ShardError, TrustError
from helix_lineage.shard.entries import VERSION, dump, load_array, raw, uint
from helix_lineage.tlog import checkpoint, merkle
from helix_lineage.tlog.checkpoint import DIRECTORY_ORIGIN, Checkpoint

ROLE = "directory"


@dataclass(frozen=True, slots=True)
class DirectoryReceipt:
    """That an entry is in the log."""

    index: int
    entry: bytes
    inclusion: tuple[bytes, ...]
    note: bytes
    """The signed checkpoint that both proofs lead to."""
    consistency: tuple[bytes, ...]
    """From the checkpoint that the client said it holds."""

    def to_bytes(self) -> bytes:
        """The answer's body."""
        fields = [self.index, self.entry, list(self.inclusion), self.note, list(self.consistency)]
        return dump([VERSION, *fields])

    @classmethod
    def from_bytes(cls, data: bytes) -> DirectoryReceipt:
        """Read an answer. Raises DirectoryError."""
        index, entry, inclusion, note, consistency = _fields(data, 5)
        if not isinstance(entry, bytes) or not isinstance(note, bytes):
            raise DirectoryError("a receipt's entry and checkpoint are byte strings")
        return cls(_number(index), entry, proof(inclusion), note, proof(consistency))


@dataclass(frozen=True, slots=True)
class ShardState:
    """How far a shard has come in the directory: a hint for the next proof, not evidence."""

    size: int
    root: bytes
    last: int
    """Entry that holds its last checkpoint."""
    closed: bool

    def to_bytes(self) -> bytes:
        """The answer's body."""
        return dump([VERSION, self.size, self.root, self.last, self.closed])

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardState:
        """Read an answer. Raises DirectoryError."""
        size, root, last, closed = _fields(data, 4)
        try:
            return cls(_number(size), raw(root, "root", 32), _number(last), closed is True)
        except ShardError as error:
            raise DirectoryError(error.what) from error


def open_note(note: bytes, trust: Trust, at: datetime) -> Checkpoint:
    """A directory's checkpoint, signed by a key of role `directory` under the name that it has there.

    Raises TrustError.
    """
    claimed = checkpoint.parse(note)
    keys = [key for key in trust.keys_for(ROLE, at) if key.algorithm == ED25519]
    if not keys:
        trust.key_for(ROLE, at)  # says why there is none
        raise TrustError(f"the directory's key is not {ED25519}", fix="helix keys init")
    mine = [key for key in keys if DIRECTORY_ORIGIN + key.builder == claimed.origin]
    problem = TrustError(f"no directory of the trust root is called {claimed.origin!r}")
    for key in mine:
        try:
            return checkpoint.verify(note, claimed.origin, key.public_key.public_bytes_raw())  # type: ignore[union-attr]
        except TrustError as error:
            problem = error
    raise problem


def check_receipt(
    receipt: DirectoryReceipt, body: Entry, seen: Checkpoint | None, trust: Trust, at: datetime
) -> Checkpoint:
    """The checkpoint of a receipt that proves what was asked for. Raises TrustError, naming the lie."""
    signed = open_note(receipt.note, trust, at)
    if not _answers(decode(receipt.entry)[1], body):
        raise TrustError("the directory answers with another entry than it was asked to take", where=signed.origin)
    leaf = merkle.leaf_hash(receipt.entry)
    if not merkle.verify_inclusion(receipt.index, signed.size, leaf, receipt.inclusion, signed.root):
        raise TrustError("the directory's entry is not under its checkpoint", where=signed.origin)
    check_growth(seen, signed, receipt.consistency)
    return signed


def _answers(held: Entry, asked: Entry) -> bool:
    """Does the entry hold what was asked for? What was taken earlier may have come with another proof."""
    if isinstance(held, StatementEntry) or isinstance(asked, StatementEntry):
        return held == asked
    if isinstance(asked, Registration):
        return isinstance(held, Registration) and held.header == asked.header
    if isinstance(asked, Ending) and not (isinstance(held, Ending) and held.close == asked.close):
        return False
    return checkpoint.parse(held.note) == checkpoint.parse(asked.note)


def check_growth(seen: Checkpoint | None, signed: Checkpoint, consistency: tuple[bytes, ...] | list[bytes]) -> None:
    """The log only grew since `seen`. Raises TrustError: rolled back, forked, or another directory."""
    if seen is None:
        return
    if signed.origin != seen.origin:
        raise TrustError(f"another directory answers: {signed.origin}", where=seen.origin)
    if signed.size < seen.size:
        raise TrustError(
            f"the directory was rolled back: it has {signed.size} entries, but showed {seen.size}", where=seen.origin
        )
    if seen.size == 0:
        return  # every log extends the empty one
    if not merkle.verify_consistency(seen.size, signed.size, seen.root, signed.root, consistency):
        raise TrustError(
            f"the directory was forked: its {signed.size} entries do not extend the {seen.size} that it showed",
            where=seen.origin,
        )


def _fields(data: bytes, count: int) -> list[Any]:
    try:
        fields = load_array(data)
    except ShardError as error:
        raise DirectoryError(f"the directory's answer: {error.what}") from error
    if len(fields) != count + 1 or fields[0] != VERSION or isinstance(fields[0], bool):
        raise DirectoryError(f"the directory's answer has other fields: {fields[:1]}")
    return fields[1:]


def _number(value: object) -> int:
    try:
        return uint(value, "number")
    except ShardError as error:
        raise DirectoryError(error.what) from error
