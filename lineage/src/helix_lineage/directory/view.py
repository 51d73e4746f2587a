"""Everything that a directory holds, read from a URL or a folder, and checked again.

The entries must be those under its signed checkpoint. An audit also asks of each entry whether
it was right by the rules when it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from helix_lineage import merkle
from helix_lineage.checkpoint import Checkpoint
from helix_lineage.directory.entries import Statement, decode
from helix_lineage.directory.receipt import open_note
from helix_lineage.directory.rules import Book, KnownShard
from helix_lineage.directory.source import Source
from helix_lineage.errors import LineageError, ShardError, TrustError
from helix_lineage.trust import Trust


@dataclass(slots=True)
class View:
    """A directory at one checkpoint."""

    note: bytes
    checkpoint: Checkpoint
    book: Book
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Entries that the directory should not have taken."""

    def shard(self, name: str) -> KnownShard | None:
        """What is known of a shard."""
        return self.book.shards.get(name)


def load(source: Source, trust: Trust, at: datetime, *, audited: bool = False) -> View:
    """Read it all. Raises TrustError when signature or entries do not hold, DirectoryAway when it cannot be read.

    Args:
        at: when the directory's key must hold.
        audited: check every entry by the rules, with every signature in it.
    """
    note = source.require("checkpoint")
    signed = open_note(note, trust, at)
    try:
        held = source.entries(0, signed.size)
    except ShardError as error:
        raise TrustError(f"the directory's tiles do not hold: {error.what}", where=signed.origin) from error
    if merkle.root([merkle.leaf_hash(entry) for entry in held]) != signed.root:
        raise TrustError("the directory's entries are not those under its checkpoint", where=signed.origin)
    view = View(note, signed, Book(trust))
    for index, entry in enumerate(held):
        try:
            _take(view, source, entry, audited=audited)
        except LineageError as error:
            view.problems.append((index, error.what))
            view.book.size = index + 1
    return view


def _take(view: View, source: Source, entry: bytes, *, audited: bool) -> None:
    """One entry. Raises LineageError when it should not be there."""
    book = view.book
    time_ns, body = decode(entry)
    bundle = source.read(f"v1/statements/{body.digest.hex()}") if isinstance(body, Statement) else None
    if audited:
        if time_ns < book.time_ns:
            raise TrustError("the directory's time went back")
        same = book.decide(body, time_ns, bundle)
        if same is not None:
            raise TrustError(f"it says what entry {same} says")
    book.apply(entry, bundle)
