"""Everything that a directory holds, read from a URL or a folder, and checked again.

The entries must be those under its signed checkpoint. An audit also asks of each entry whether
it was right by the rules when it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import bundles
from helix_lineage.directory.entries import Entry, Registration, StatementEntry, decode
from helix_lineage.directory.receipt import open_note
from helix_lineage.directory.rules import DirectoryState, RegisteredShard
from helix_lineage.directory.source import Source
from helix_lineage.errors import DirectoryAway, DirectoryError, LineageError, ShardError, StatementMissing, TrustError
from helix_lineage.formats.canonical import Json, encode_number
from helix_lineage.shard.header import ShardHeader, shard_id
from helix_lineage.tlog import merkle
from helix_lineage.tlog.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class RevocationNotice:
    """That something which a prediction rests on was revoked."""

    kind: str
    target: str
    since: datetime
    index: int
    """Entry of the revocation in the directory."""
    reason: str

    @property
    def text(self) -> str:
        """For people."""
        when = self.since.isoformat()
        return f"revoked: the {self.kind} {self.target}, as of {when} (directory entry {self.index}): {self.reason}"

    def to_json(self) -> dict[str, Json]:
        """The mark as JSON values."""
        since = self.since.isoformat()
        return {
            "kind": self.kind, "target": self.target, "since": since, "index": self.index, "reason": self.reason,
        }  # fmt: skip


@dataclass(slots=True)
class View:
    """A directory at one checkpoint."""

    note: bytes
    checkpoint: Checkpoint
    book: DirectoryState
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Entries that the directory should not have taken."""
    missing: list[tuple[int, StatementMissing]] = field(default_factory=list)
    """Entries whose bundle is absent or another one: what they say is unknown."""

    def shard(self, name: str) -> RegisteredShard | None:
        """What is known of a shard."""
        return self.book.shards.get(name)

    def marks(self, header: ShardHeader) -> list[RevocationNotice]:
        """What was revoked of that which a shard's header names, by whom it was signed included."""
        named = [("release", header.release), ("promotion", header.promotion), ("image", header.image)]
        for known in (self.book.releases.get(header.release or ""), self.book.promotions.get(header.promotion or "")):
            if known is not None:
                named.append(("key", known.verified.key_id))
        found = [self.book.revoked(kind, target) for kind, target in named]
        return [
            RevocationNotice(item.kind, item.target, item.since, self.book.index_of(item), item.reason)
            for item in found
            if item is not None
        ]


@dataclass(frozen=True, slots=True)
class WitnessedTimes:
    """What a directory says of one entry of a shard."""

    origin: str
    index: int | None
    """Entry of the shard's registration; None when it was never registered."""
    registered_ns: int | None
    after_ns: int | None
    """When the directory took the last checkpoint without the entry."""
    before_ns: int | None
    """When it took the first one with it; None while it has not."""
    closed: bool
    marks: tuple[RevocationNotice, ...]

    def to_json(self) -> dict[str, Json]:
        """What is said, as JSON values."""
        return {
            "origin": self.origin,
            "index": self.index,
            "registered_ns": None if self.registered_ns is None else encode_number(self.registered_ns),
            "after_ns": None if self.after_ns is None else encode_number(self.after_ns),
            "before_ns": None if self.before_ns is None else encode_number(self.before_ns),
            "closed": self.closed,
            "revoked": [mark.to_json() for mark in self.marks],
        }


def witnessed(view: View, header: ShardHeader, sequence: int, shard: str) -> WitnessedTimes:
    """What the directory says of entry `sequence` of a shard. Pure."""
    origin, marks, known = view.checkpoint.origin, tuple(view.marks(header)), view.shard(shard)
    if known is None:
        return WitnessedTimes(origin, None, None, None, None, False, marks)
    before = next((time_ns for _, time_ns, size, _ in known.seen if size > sequence), None)
    without = [time_ns for _, time_ns, size, _ in known.seen if size <= sequence]
    after = without[-1] if without else None
    return WitnessedTimes(origin, known.index, known.time_ns, after, before, known.closed, marks)


def load(source: Source, trust: Trust, at: datetime, *, audited: bool = False) -> View:
    """Read it all.

    Raises TrustError when signature or entries do not hold, DirectoryAway when it cannot be read, StatementMissing
    when a bundle is not there: a directory that is not whole says of nothing that it was not revoked.

    Args:
        at: when the directory's key must hold.
        audited: check every entry by the rules, with every signature in it; what is wrong or missing stands in the
            view then, and is not raised.
    """
    try:
        note = source.require("checkpoint")
        signed = open_note(note, trust, at)
        held = source.entries(0, signed.size)
    except DirectoryAway:
        raise
    except (ShardError, DirectoryError) as error:
        raise TrustError(f"the directory does not hold: {error.what}", where=error.where or str(source)) from error
    if merkle.root([merkle.leaf_hash(entry) for entry in held]) != signed.root:
        raise TrustError("the directory's entries are not those under its checkpoint", where=signed.origin)
    view = View(note, signed, DirectoryState(trust))
    for index, entry in enumerate(held):
        try:
            _take(view, source, entry, audited=audited)
            continue
        except DirectoryAway:
            raise
        except StatementMissing as error:
            view.missing.append((index, error))
        except LineageError as error:
            if not audited:
                raise TrustError(
                    f"entry {index} of the directory does not hold: {error.what}", where=str(source)
                ) from error
            view.problems.append((index, error.what))
        view.book.size = index + 1
    if view.missing and not audited:
        raise bundles.missing([error for _, error in view.missing], str(source))
    return view


def _take(view: View, source: Source, entry: bytes, *, audited: bool) -> None:
    """One entry. Raises LineageError when it should not be there."""
    book = view.book
    time_ns, body = decode(entry)
    bundle = None
    if isinstance(body, StatementEntry):
        try:
            found = source.read(f"v1/statements/{body.digest.hex()}")
        except TrustError as error:
            what = f"the bundle of a statement cannot be read: {error.what}"
            raise StatementMissing(what, where=f"statement/{body.digest.hex()}") from error
        bundle = bundles.own(body, found)
    if audited:
        try:
            _check(book, body, time_ns, bundle)
        except LineageError:
            # A shard of a release that is not known here is followed all the same: the result can be compared.
            if isinstance(body, Registration) and shard_id(body.header) not in book.shards:
                book.apply(entry)
            raise
    book.apply(entry, bundle)


def _check(book: DirectoryState, body: Entry, time_ns: int, bundle: bytes | None) -> None:
    """By the rules. Raises LineageError when it should not be there."""
    if time_ns < book.time_ns:
        raise TrustError("the directory's time went back")
    same = book.decide(body, time_ns, bundle)
    if same is not None:
        raise TrustError(f"it says what entry {same} says")
