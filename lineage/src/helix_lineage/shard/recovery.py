"""Start-up recovery of shards whose process died (FORMAT.md 9).

Nothing acknowledged is touched: only what follows the last intact checkpoint is cut off,
and what is cut off is kept beside the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.errors import LineageError, ShardError, TrustError, reason
from helix_lineage.formats import untrusted
from helix_lineage.shard import entries
from helix_lineage.shard.entries import VERSION, PredictionEntry, version_and_kind
from helix_lineage.shard.header import ShardHeader, shard_id
from helix_lineage.shard.payload_reader import PayloadReader
from helix_lineage.tlog import checkpoint, journal, merkle
from helix_lineage.tlog.disk import (
    FolderLock,
    cut_file,
    remove_file,
    remove_tree,
    replace_file,
    sync_folder,
    sync_if_there,
)
from helix_lineage.tlog.layout import (
    MAX_JOURNAL_BYTES,
    MAX_NOTE_BYTES,
    MAX_TILE_BYTES,
    NEW_PREFIX,
    TEMPORARY,
    TILE_WIDTH,
    ShardFolder,
    is_shard_id,
)
from helix_lineage.tlog.tile_files import reach
from helix_lineage.tlog.tile_writer import TileWriter
from helix_lineage.tlog.tiles import decode_bundle, of_size

_log = logging.getLogger(__name__)

_PREDICTION = (VERSION, PredictionEntry.KIND)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found of a dead shard."""

    shard: str
    entry: entries.Recovered | None
    """What the new shard says of it; None when the dead one is damaged."""
    problem: str | None = None
    """Why it was left alone."""


def recover_others(
    log_dir: Path, own: str, now: Callable[[], int], record: Callable[[bytes], str]
) -> Iterator[Recovery]:
    """Recover every dead shard under `log_dir` but `own`. Raises ShardError when a folder cannot be written.

    Args:
        record: writes an entry into the own shard, and gives its id when it is on the disk. Until that is noted in the
            recovered shard, nobody else that starts may recover it.
    """
    for path in _paths(log_dir):
        folder = ShardFolder(path)
        if path.name.startswith(NEW_PREFIX) and path.is_dir() and not path.is_symlink():
            _remove_unpublished(folder)
        # A link could lead recovery to cut files that are not this log's.
        if not is_shard_id(path.name) or path.is_symlink() or path.name == own or folder.recovered.exists():
            continue
        try:
            found = _lock_and_recover(folder, now, record)
        except OSError as error:
            if not untrusted.is_planted(error):
                raise ShardError(f"cannot recover the shard: {reason(error)}", where=str(path)) from error
            found = Recovery(folder.id, None, f"{error.filename}: {error.strerror}")
        if found is not None:
            if found.entry is None:
                _log.error("shard %s is damaged and was left alone: %s", found.shard, found.problem)
            yield found


def _lock_and_recover(folder: ShardFolder, now: Callable[[], int], record: Callable[[bytes], str]) -> Recovery | None:
    """None when there is nothing to recover, or somebody else holds the lock. Raises OSError."""
    try:
        lock = FolderLock(folder.lock)
    except BlockingIOError:
        return None  # its process lives, or another one recovers it
    try:
        found = None if _is_closed(folder) or folder.recovered.exists() else _recover(folder, now)
        if found is not None and found.entry is not None:
            replace_file(folder.recovered, f"{record(found.entry.to_bytes())}\n".encode(), durable=True)
        return found
    finally:
        lock.release()


def _recover(folder: ShardFolder, now: Callable[[], int]) -> Recovery | None:
    """Cut the torn tail off, and derive tiles and checkpoint again; None when only the tiles were missing."""
    untrusted.check_folder(folder.payload)  # behind a link, what is cut off would be somebody else's
    data = untrusted.read(folder.journal, limit=MAX_JOURNAL_BYTES)
    found = journal.parse(data)
    try:
        last = _check(folder, found)
    except LineageError as error:
        return Recovery(folder.id, None, str(error))
    if found.tail:
        replace_file(folder.torn, data[found.intact : found.intact + found.tail], durable=True)
    if found.length > found.intact:
        cut_file(folder.journal, found.intact)
    covered = found.entries[: found.covered]
    _cut_payload(folder, covered)
    for path in folder.root.glob(f"*{TEMPORARY}"):
        remove_file(path)
    tiles = TileWriter(folder)
    for entry in covered:
        tiles.add(entry, merkle.leaf_hash(entry))
    # In this order whoever reads meanwhile finds tiles for the checkpoint that he finds, and no other ones in the end.
    wanted = {folder.tile(*tile) for tile in of_size(last.size)}
    _make_way(folder, wanted)
    tiles.lay(durable=True)
    _remove_other_tiles(folder, wanted)
    tiles.publish(found.checkpoints[-1].note, durable=True)
    if isinstance(entries.decode(covered[-1]), entries.Close):
        return None
    told = entries.Recovered(bytes.fromhex(folder.id), last.size, last.root, found.tail, now())
    return Recovery(folder.id, told)


def _check(folder: ShardFolder, found: journal.Journal) -> checkpoint.Checkpoint:
    """The last checkpoint, if the journal holds together up to it. Raises LineageError."""
    if not found.checkpoints:
        raise ShardError(f"the journal holds no checkpoint: {found.damage}")
    if shard_id(found.entries[0]) != folder.id:
        raise ShardError("the journal belongs to another shard")
    header = ShardHeader.from_bytes(found.entries[0])
    origin = checkpoint.SHARD_ORIGIN + folder.id
    last = checkpoint.verify(found.checkpoints[-1].note, origin, header.public_key)
    root = merkle.root([merkle.leaf_hash(entry) for entry in found.entries[: found.covered]])
    if (last.size, last.root) != (found.covered, root):
        raise ShardError("the journal's entries are not those of its last checkpoint")
    published = _published(folder, origin, header.public_key)
    if published > last.size:
        raise ShardError(f"the journal is intact up to entry {last.size}, but {published} entries were published")
    if (shown := reach(folder)) > last.size:
        raise ShardError(f"the journal is intact up to entry {last.size}, but tiles of {shown} entries lie here")
    return last


def _published(folder: ShardFolder, origin: str, public_key: bytes) -> int:
    """Entries under the published checkpoint. While a process lives, a power cut may tear it: then it says nothing."""
    try:
        return checkpoint.verify(untrusted.read(folder.checkpoint, limit=MAX_NOTE_BYTES), origin, public_key).size
    except (FileNotFoundError, TrustError):
        return 0


def _is_closed(folder: ShardFolder) -> bool:
    """Is the last published entry a close entry? (A process publishes it as its last act.)"""
    try:
        size = checkpoint.parse(untrusted.read(folder.checkpoint, limit=MAX_NOTE_BYTES)).size
        index, rest = divmod(size - 1, TILE_WIDTH)
        width = TILE_WIDTH if rest == TILE_WIDTH - 1 else rest + 1
        bundle = decode_bundle(untrusted.read(folder.bundle(index, width), limit=MAX_TILE_BYTES))
        return isinstance(entries.decode(bundle[rest]), entries.Close)
    except (OSError, LineageError, IndexError):
        return False


def _folders(folder: ShardFolder, tiles: set[Path]) -> list[Path]:
    """The folders that tiles lie in, outer ones first."""
    return sorted({parent for tile in tiles for parent in tile.parents if parent.is_relative_to(folder.tiles)})


def _make_way(folder: ShardFolder, tiles: set[Path]) -> None:
    """Remove links and files that stand where folders of tiles belong, and folders where tiles do."""
    for path in _folders(folder, tiles):
        if path.is_symlink() or path.is_file():
            remove_file(path)
    for path in tiles:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)


def _remove_other_tiles(folder: ShardFolder, tiles: set[Path]) -> None:
    """Leave, durably, these tiles alone."""
    remove_tree(folder.tiles, but=tiles)
    for path in _folders(folder, tiles):
        sync_folder(path)


def _cut_payload(folder: ShardFolder, covered: list[bytes]) -> None:
    """Cut off payload of items that were never acknowledged. Leaves damaged payload alone."""
    sequences = [at for at, entry in enumerate(covered) if at and version_and_kind(entry) == _PREDICTION]
    reader = PayloadReader(folder)
    segments, keep, end = reader.segments(), -1, 0
    if sequences:
        try:
            last = reader.output(sequences[-1])
        except ShardError:
            return
        keep, end = last.segment, last.offset + len(last.record.to_bytes())
    for number in segments:
        if number > keep:
            remove_file(folder.segment(number))
        elif number == keep:
            cut_file(folder.segment(number), end)
    sync_if_there(folder.payload)


def _paths(log_dir: Path) -> list[Path]:
    try:
        return sorted(log_dir.iterdir())
    except OSError as error:
        raise ShardError(f"cannot list the shards: {reason(error)}", where=str(log_dir)) from error


def _remove_unpublished(folder: ShardFolder) -> None:
    """Remove a shard that never got its name, unless somebody is making it right now."""
    try:
        lock = FolderLock(folder.lock)
    except OSError:
        return
    # Another remover may have been here between the two halves of taking the lock, and the maker be back since.
    if lock.lies_at(folder.lock):
        remove_tree(folder.root)
    lock.release()
