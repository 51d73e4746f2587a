"""A log may change while it is read: did it, and what is there when files come and go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from helix_lineage.shard.reader import Log
from helix_lineage.tlog.layout import ShardFolder

Seen = tuple[int, int, int] | None
"""Of a file: inode, size and time of the last change; None when it is not there."""


def state_of(log: Log) -> dict[str, list[Seen]]:
    """Shard → what tells, without reading it, that something happened there: written, published, recovered, erased."""
    return {name: [_seen(path) for path in _telling(ShardFolder(log.root / name))] for name in log.shard_ids()}


def files_below(folder: Path) -> Iterator[Path]:
    """Every file and every link below a folder. (`Path.rglob` fails on a folder that goes away.)"""
    for top, folders, names in os.walk(folder):
        yield from (Path(top, name) for name in names)
        yield from (path for path in (Path(top, name) for name in folders) if path.is_symlink())


def _telling(folder: ShardFolder) -> list[Path]:
    return [folder.journal, folder.checkpoint, folder.recovered, *folder.segments()]


def _seen(path: Path) -> Seen:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
