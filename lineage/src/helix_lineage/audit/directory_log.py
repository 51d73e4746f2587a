"""Audit a directory's own folder: its journal, and whether its tiles are those of its journal.

What the directory shows (its published checkpoint, tiles and statements) is read and checked by
`directory.view`; this looks at what it goes on from when it starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from helix_lineage.attestations.trust import ED25519, Trust
from helix_lineage.audit.findings import Finding
from helix_lineage.audit.tile_audit import check_tiles
from helix_lineage.directory.receipt import ROLE
from helix_lineage.directory.storage import CUT, STATEMENTS, named_statements, statement_digests
from helix_lineage.errors import ShardError, TrustError
from helix_lineage.formats import untrusted
from helix_lineage.tlog import checkpoint, journal, merkle
from helix_lineage.tlog.checkpoint import DIRECTORY_ORIGIN, Checkpoint
from helix_lineage.tlog.disk import is_locked
from helix_lineage.tlog.layout import MAX_JOURNAL_BYTES, TILE_WIDTH, ShardFolder
from helix_lineage.tlog.tile_files import reach


def audit_directory_log(root: Path, trust: Trust, published: Checkpoint | None) -> list[Finding]:
    """What is wrong with the journal, and with tiles beside it.

    Args:
        published: the checkpoint that the directory shows; None when that does not hold, which is found elsewhere.
    """
    folder, found = ShardFolder(root), list[Finding]()

    def find(message: str) -> None:
        found.append(Finding("directory", "", message))

    try:
        live = is_locked(folder.lock)
        shown, statements = reach(folder), statement_digests(root)  # before the journal, which is always further
        parsed = journal.parse(untrusted.read(folder.journal, limit=MAX_JOURNAL_BYTES))
    except ShardError as error:
        return [Finding("directory", "", f"lock: {error.what}")]
    except FileNotFoundError:
        return [Finding("directory", "", "the journal is missing")]
    except OSError as error:
        return [Finding("directory", "", f"the journal cannot be read: {error.strerror}")]
    entries = parsed.entries[: parsed.covered]
    if parsed.tail and not live:
        why = parsed.damage or "entries follow its last checkpoint"
        find(f"the journal is torn, or damaged, after {len(entries)} entries: {why}")
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    _check_notes(parsed.checkpoints, leaves, trust, find)
    if published is not None and published.size > len(leaves):
        find(f"the journal ends at {len(leaves)} entries, but {published.size} were published")
    elif shown > len(leaves):
        find(f"the journal ends at {len(leaves)} entries, but tiles of {shown} lie here: {CUT}")
    elif published is not None and merkle.root(leaves[: published.size]) != published.root:
        find(f"the journal's first {published.size} entries are not those that were published")
    for digest in sorted(statements - named_statements(entries)):
        find(f"no entry of the journal names {STATEMENTS}/{digest.hex()}: {CUT}")
    nodes = [merkle.root(leaves[at : at + TILE_WIDTH]) for at in range(0, len(leaves) - TILE_WIDTH + 1, TILE_WIDTH)]
    check_tiles(
        folder, entries, [leaves, nodes], published, beyond=True, torn=True, find=lambda _, message: find(message)
    )
    return found


def _check_notes(
    notes: Sequence[journal.Covered], leaves: Sequence[bytes], trust: Trust, find: Callable[[str], None]
) -> None:
    """Name the first checkpoint of the journal that does not hold."""
    if not notes:
        find("the journal holds no checkpoint")
    frontier = merkle.Frontier()
    for note in notes:
        frontier.extend(leaves[frontier.size : note.size])
        try:
            signed = _verify(note.note, trust)
        except TrustError as error:
            find(f"the journal's checkpoint of {note.size} entries: {error.what}")
            return
        if (signed.size, signed.root) != (note.size, frontier.root):
            find(f"the journal's entries are not those under its checkpoint of {note.size} entries")
            return


def _verify(note: bytes, trust: Trust) -> Checkpoint:
    """A checkpoint that a directory of the trust root signed, under whichever of its keys. Raises TrustError."""
    origin = checkpoint.parse(note).origin
    problem = TrustError(f"no directory of the trust root is called {origin!r}")
    for key in trust.keys:
        if key.role == ROLE and key.algorithm == ED25519 and DIRECTORY_ORIGIN + key.builder == origin:
            try:
                return checkpoint.verify(note, origin, key.public_key.public_bytes_raw())  # type: ignore[union-attr]
            except TrustError as error:
                problem = error
    raise problem
