"""A log may change while it is read: did it?"""

from __future__ import annotations

from pathlib import Path

from helix_lineage.shard.reader import Log
from helix_lineage.tlog.layout import ShardFolder

Seen = tuple[int, int, int] | None
"""Of a file: inode, size and time of the last change; None when it is not there."""


def state_of(log: Log) -> dict[str, list[Seen]]:
    """Shard → what tells, without reading it, that something happened there: written, published, recovered, erased."""
    return {name: [_seen(path) for path in _telling(ShardFolder(log.root / name))] for name in log.shard_ids()}


def _telling(folder: ShardFolder) -> list[Path]:
    return [folder.journal, folder.checkpoint, folder.recovered, *folder.segments()]


def _seen(path: Path) -> Seen:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
