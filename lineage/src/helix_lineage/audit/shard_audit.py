"""Audit one shard: derive everything again, from the bytes that lie there."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helix_lineage.audit.findings import Finding, compare
from helix_lineage.audit.tile_audit import check_tiles, signed_leaves
from helix_lineage.audit.workers import ranges, spread
from helix_lineage.errors import ShardError, TrustError
from helix_lineage.formats import untrusted
from helix_lineage.shard import entries
from helix_lineage.shard.header import ShardHeader, shard_id
from helix_lineage.tlog import checkpoint, journal, merkle
from helix_lineage.tlog.disk import is_locked
from helix_lineage.tlog.layout import MAX_JOURNAL_BYTES, MAX_NOTE_BYTES, TEMPORARY, TILE_WIDTH, ShardFolder
from helix_lineage.tlog.tile_files import files_below, reach

_PART = 65536
"""Entries that a process looks at in one go; whole tiles."""
_NOTES = 2048
"""Checkpoints that a process verifies in one go."""


@dataclass(slots=True)
class AuditedShard:
    """A shard as the audit read it."""

    folder: ShardFolder
    header: ShardHeader | None = None
    live: bool = False
    recovered: bool = False
    """Whether it was, when its files began to be read: a server that starts meanwhile cuts them."""
    covered: list[bytes] = field(default_factory=list)
    """Entries under the last checkpoint of the journal."""
    leaves: list[bytes] = field(default_factory=list)
    """Their leaf hashes."""
    nodes: list[bytes] = field(default_factory=list)
    """Of each full tile of them the root."""
    others: dict[int, entries.Body] = field(default_factory=dict)
    """Entries after the header that are no predictions, and could be read."""
    predictions: array[int] = field(default_factory=lambda: array("Q"))
    """Sequences of the prediction entries."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The name of the folder."""
        return self.folder.id

    @property
    def origin(self) -> str:
        """The name in checkpoints."""
        return checkpoint.SHARD_ORIGIN + self.id

    @property
    def ended(self) -> bool:
        """Was the shard closed, or recovered?"""
        return self.recovered or (bool(self.covered) and entries.is_close(self.covered[-1]))

    @property
    def unfinished(self) -> bool:
        """May its files still change: does its process live, or is a recovery due?"""
        return self.live or not self.ended

    def find(self, rule: str, message: str, sequence: int | None = None) -> None:
        """Report."""
        self.findings.append(Finding(rule, self.id, message, sequence))

    def root_at(self, size: int) -> bytes:
        """Root over the first `size` entries."""
        return self.root_of(0, size)

    def root_of(self, start: int, end: int) -> bytes:
        """Root over entries `[start, end)`, where a range longer than a tile starts with one."""
        if end - start < TILE_WIDTH:
            return merkle.root(self.leaves[start:end])
        full, rest = end // TILE_WIDTH, end % TILE_WIDTH
        # What is left over goes up as it is, level by level, until it meets a neighbour: as in `merkle.root`.
        last = [merkle.root(self.leaves[end - rest : end])] if rest else []
        return merkle.root([*self.nodes[start // TILE_WIDTH : full], *last])


def audit_shard(path: Path, progress: Callable[[str], None] = lambda _: None) -> AuditedShard:
    """Header, journal, checkpoints, entries and tiles of the shard in a folder. Never raises LineageError."""
    folder = ShardFolder(path)
    shard = AuditedShard(folder, recovered=os.path.lexists(folder.recovered))
    shard.live = _is_live(shard)
    # The published checkpoint first: a living writer only ever moves ahead of it.
    note = _read(shard, folder.checkpoint, MAX_NOTE_BYTES, "checkpoint", "the published checkpoint")
    shown = reach(folder)
    data = _read(shard, folder.journal, MAX_JOURNAL_BYTES, "journal-damaged", "the journal")
    if data is None:
        return shard
    parsed = journal.parse(data)
    shard.covered = parsed.entries[: parsed.covered]
    progress(f"shard {shard.id}: {len(shard.covered)} entries")
    for leaves, nodes in spread(lambda part: _hashes(shard.covered, part), ranges(len(shard.covered), _PART)):
        shard.leaves += leaves
        shard.nodes += nodes
    if not _check_header(shard, parsed):
        return shard
    published = _check_published(shard, note)
    lost = _check_end(shard, parsed, published, shown)
    if not lost:
        _check_tail(shard, parsed)
    progress(f"shard {shard.id}: {len(parsed.checkpoints)} checkpoints")
    _check_contents(shard, parsed, published)
    _decode(shard)
    progress(f"shard {shard.id}: tiles")
    hashes = [shard.leaves, shard.nodes]
    # A process may die between its close entry and the checkpoint of it.
    torn = shard.unfinished or (published is not None and published.size < len(shard.covered))
    beyond = shard.unfinished or lost
    check_tiles(shard.folder, shard.covered, hashes, published, beyond=beyond, torn=torn, find=shard.find)
    _check_files(shard, torn=torn)
    return shard


def _is_live(shard: AuditedShard) -> bool:
    try:
        return is_locked(shard.folder.lock)
    except ShardError as error:
        shard.find("file", f"lock: {error.what}")
        return False


def _read(shard: AuditedShard, path: Path, limit: int, rule: str, what: str) -> bytes | None:
    try:
        return untrusted.read(path, limit=limit)
    except FileNotFoundError:
        shard.find(rule, f"{what} is missing")
    except OSError as error:
        shard.find(rule, f"{what} cannot be read: {error.strerror}")
    return None


def _check_header(shard: AuditedShard, parsed: journal.Journal) -> bool:
    if not parsed.entries:
        shard.find("header", f"the journal holds no header: {parsed.damage}")
        return False
    made = shard_id(parsed.entries[0])
    if made != shard.id:
        shard.find("header", f"entry 0 was edited, or the folder renamed: it makes the id {made}", 0)
        return False
    try:
        shard.header = ShardHeader.from_bytes(parsed.entries[0])
    except ShardError as error:
        shard.find("header", str(error), 0)
        return False
    return True


def _check_published(shard: AuditedShard, note: bytes | None) -> checkpoint.Checkpoint | None:
    if note is None or shard.header is None:
        return None
    try:
        return checkpoint.verify(note, shard.origin, shard.header.public_key)
    except TrustError as error:
        shard.find("checkpoint", f"the published checkpoint: {error.what}")
        return None


def _check_end(
    shard: AuditedShard, parsed: journal.Journal, published: checkpoint.Checkpoint | None, shown: int
) -> bool:
    """Did the journal lose entries that were published, or that tiles were made of?"""
    covered = parsed.covered
    if published is not None and published.size > covered:
        what = f"{published.size} were published"
    elif shown > covered:
        what = f"tiles of {shown} lie here: it was cut back together with its checkpoint, or damaged"
    else:
        return False
    what = f"the journal's checkpoints cover {covered} entries, but {what}"
    shard.find("truncated", f"{what} ({parsed.damage})" if parsed.damage else what, covered)
    return True


def _check_tail(shard: AuditedShard, parsed: journal.Journal) -> None:
    """What follows the last checkpoint of the journal."""
    covered = parsed.covered
    if parsed.preallocated and not shard.unfinished:
        shard.find("journal-damaged", f"{parsed.preallocated} zeros follow the end of the journal", covered)
    if not parsed.tail:
        return
    what = f"{parsed.tail} bytes after entry {covered - 1} are under no checkpoint"
    what += f"; {parsed.damage}" if parsed.damage else ""
    if shard.live:
        shard.notes.append(f"{shard.id}: {what} (its process lives)")
    elif shard.ended:
        shard.find("journal-damaged", what, covered)
    else:
        shard.find("journal-torn", f"{what}: torn, or damaged; starting a server here recovers it", covered)


def _check_contents(shard: AuditedShard, parsed: journal.Journal, published: checkpoint.Checkpoint | None) -> None:
    """Every checkpoint of the journal against the entries; the first that fails is named, with what tells why."""
    if shard.header is None:
        return
    before = 0
    for covered, (signed, root) in zip(parsed.checkpoints, _verify_all(shard, parsed.checkpoints), strict=True):
        if isinstance(signed, str):
            shard.find("checkpoint", f"the journal's checkpoint after entry {covered.size - 1}: {signed}")
            continue
        if (signed.size, signed.root) != (covered.size, root):
            _name_difference(shard, published, signed, covered.size, before)
            return
        before = signed.size
    if published is None or published.size > len(shard.leaves):
        return
    if shard.root_at(published.size) != published.root:
        shard.find("forked", f"the published checkpoint of size {published.size} is of another history")


def _verify_all(
    shard: AuditedShard, notes: Sequence[journal.Covered]
) -> list[tuple[checkpoint.Checkpoint | str, bytes]]:
    """What each signed note says, or why its signature does not hold; and the root of the entries before it."""
    key = b"" if shard.header is None else shard.header.public_key

    def verify(part: range) -> list[tuple[checkpoint.Checkpoint | str, bytes]]:
        found: list[tuple[checkpoint.Checkpoint | str, bytes]] = []
        frontier = merkle.Frontier.of(notes[part.start - 1].size if part.start else 0, shard.root_of)
        for at in part:
            frontier.extend(shard.leaves[frontier.size : notes[at].size])
            try:
                found.append((checkpoint.verify(notes[at].note, shard.origin, key), frontier.root))
            except TrustError as error:
                found.append((error.what, frontier.root))
        return found

    return [item for part in spread(verify, ranges(len(notes), _NOTES)) for item in part]


def _name_difference(
    shard: AuditedShard,
    published: checkpoint.Checkpoint | None,
    signed: checkpoint.Checkpoint,
    present: int,
    before: int,
) -> None:
    """Name the edited, dropped or moved entries: by tiles that a signature covers, else by the nearest checkpoints."""
    reference = signed_leaves(shard.folder, published) if published is not None else None
    differences = [] if reference is None else compare(reference, shard.leaves[: len(reference)])
    for difference in differences:
        shard.find(difference.rule, difference.message, difference.sequence)
    if differences:
        return
    where = f"entry {before}" if signed.size - before == 1 else f"one of the entries {before} to {signed.size - 1}"
    if present < signed.size:
        shard.find("entry-dropped", f"{where} was dropped: the checkpoint of size {signed.size} has {present}", before)
    elif signed.size - before == 1:
        shard.find("entry-edited", f"{where} was edited: it is not under the checkpoint of size {signed.size}", before)
    else:
        message = f"{where} was edited, moved or replaced: they are not under the checkpoint of size {signed.size}"
        shard.find("entries-differ", message, before)


def _decode(shard: AuditedShard) -> None:
    """Every entry can be read, and stands where it may."""
    parts = spread(lambda part: _odd(shard.covered, part), ranges(len(shard.covered), _PART))
    odd = [at for part in parts for at in part if at]
    gone = set(odd)
    shard.predictions = array("Q", (at for at in range(1, len(shard.covered)) if at not in gone))
    closed_at = None
    for sequence in _and_all_after_close(shard.covered, odd):
        try:
            body = entries.decode(shard.covered[sequence])
        except ShardError as error:
            shard.find("entry-malformed", f"entry {sequence}: {error.what}", sequence)
            continue
        if not isinstance(body, entries.PredictionEntry):
            shard.others[sequence] = body
        if isinstance(body, entries.Unknown) and (body.version, body.kind) == (entries.VERSION, ShardHeader.KIND):
            shard.find("entry-malformed", f"entry {sequence} is a second header", sequence)
        if closed_at is not None:
            shard.find("entry-malformed", f"entry {sequence} follows the close entry {closed_at}", sequence)
        if isinstance(body, entries.Close):
            closed_at = sequence


def _hashes(covered: Sequence[bytes], part: range) -> tuple[list[bytes], list[bytes]]:
    """Leaf hashes, and the root of each full tile of them."""
    leaves = [merkle.leaf_hash(covered[at]) for at in part]
    full = range(0, len(leaves) - TILE_WIDTH + 1, TILE_WIDTH)
    return leaves, [merkle.root(leaves[at : at + TILE_WIDTH]) for at in full]


def _odd(covered: Sequence[bytes], part: range) -> list[int]:
    """The entries that are no prediction entries."""
    return [at for at in part if entries.commitments(covered[at]) is None]


def _and_all_after_close(covered: Sequence[bytes], odd: Sequence[int]) -> list[int]:
    """The odd entries, and those after a close entry: each of them stands where it may not."""
    for at in odd:
        if entries.is_close(covered[at]):
            return [*(before for before in odd if before <= at), *range(at + 1, len(covered))]
    return list(odd)


def _check_files(shard: AuditedShard, *, torn: bool) -> None:
    """Nothing lies in the folder that does not belong there, but files that were being written; not of tiles."""
    folder = shard.folder
    known = {folder.lock, folder.journal, folder.torn, folder.recovered, folder.checkpoint}
    known |= {folder.release, folder.promotion}
    there = sorted(_files_but_tiles(folder))
    # Listed after the files: a living process may begin a segment between the two, and a recovery take one away.
    segments = {folder.segment(number) for number in range(len(folder.segments()))}
    for path in there:
        ours = path in known or path in segments or (torn and path.suffix == TEMPORARY)
        if not ours and not (shard.unfinished and not os.path.lexists(path)):
            shard.find("file", f"{path.relative_to(folder.root)} does not belong to a shard")


def _files_but_tiles(folder: ShardFolder) -> Iterator[Path]:
    for top in folder.root.iterdir():
        if top.is_symlink() or not top.is_dir():
            yield top
        elif top != folder.tiles:
            yield from files_below(top)
