"""Does a directory's log still extend the checkpoint that somebody kept? (The kept one lies elsewhere.)"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from helix_lineage.attestations.trust import Trust
from helix_lineage.directory.receipt import check_growth, open_note
from helix_lineage.directory.source import Source
from helix_lineage.errors import DirectoryError, ShardError, TrustError, explaining
from helix_lineage.tlog import merkle
from helix_lineage.tlog.checkpoint import Checkpoint
from helix_lineage.tlog.disk import replace_file


def newest(source: Source, seen: Checkpoint | None, trust: Trust, at: datetime) -> tuple[bytes, Checkpoint]:
    """The newest checkpoint, signed by a directory of the trust root, whose log extends `seen`.

    Raises TrustError when the directory was rolled back or forked, is another one, or shows tiles
    that are not its checkpoint's; DirectoryAway when it cannot be read.
    """
    note = source.require("checkpoint")
    signed = open_note(note, trust, at)
    proof: list[bytes] = []
    if seen is not None and 0 < seen.size <= signed.size and seen.origin == signed.origin:
        subtree = source.subtree(signed.size)
        try:
            root = merkle.range_root(0, signed.size, subtree)
            proof = [] if seen.size == signed.size else merkle.prove_consistency(seen.size, signed.size, subtree)
        except ShardError as error:
            raise TrustError(f"the directory's tiles do not hold: {error.what}", where=signed.origin) from error
        if root != signed.root:
            raise TrustError("the directory's tiles are not those of its checkpoint", where=signed.origin)
    check_growth(seen, signed, proof)
    return note, signed


def opened(kept: bytes, trust: Trust, at: datetime) -> Checkpoint:
    """A kept checkpoint; a kept file that somebody edited says nothing. Raises TrustError."""
    try:
        return open_note(kept, trust, at)
    except TrustError as error:
        raise TrustError(f"the kept checkpoint does not hold: {error.what}") from error


def replace(path: Path, note: bytes) -> None:
    """Keep a checkpoint durably in place of the one before. Raises DirectoryError."""
    with explaining(DirectoryError, "cannot keep the checkpoint", where=str(path)):
        replace_file(path.absolute(), note, durable=True)
