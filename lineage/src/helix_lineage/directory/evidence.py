"""What a shard shows to a directory: read from its folder, beside the writer, who loses no time by it."""

from __future__ import annotations

from helix_lineage.directory.entries import Advance, Ending, Registration
from helix_lineage.errors import ShardError
from helix_lineage.shard.reader import Shard


def registration(shard: Shard) -> Registration:
    """Header and checkpoint of size 1: the journal's first group. Raises ShardError."""
    found = shard.journal
    if not found.checkpoints or found.checkpoints[0].size != 1:
        raise ShardError("the journal's first group is not the header alone", where=shard.id)
    return Registration(found.entries[0], found.checkpoints[0].note)


def advance(shard: Shard, taken: int) -> Advance | None:
    """The published checkpoint, if it is beyond the `taken` entries that the directory knows. Raises ShardError."""
    note, signed = shard.published
    if signed.size <= taken:
        return None
    return Advance(shard.id, note, tuple(shard.consistency(taken)))


def ending(shard: Shard, taken: int) -> Ending:
    """The last checkpoint and the close entry under it. Raises ShardError when the shard is not closed."""
    if not shard.ended:
        raise ShardError("the shard is not closed", where=shard.id)
    note, signed = shard.published
    last = signed.size - 1
    return Ending(shard.id, note, tuple(shard.consistency(taken)), shard.entry(last), shard.inclusion(last).proof)
