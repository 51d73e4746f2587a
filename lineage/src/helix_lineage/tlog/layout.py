"""Where a shard's files lie (FORMAT.md 8): the one module that knows these paths. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.paths import PROMOTION_FILE, RELEASE_FILE, Below

TILE_WIDTH = 256
TILE_HEIGHT = 8
"""A hash tile spans this many levels of the tree."""

MAX_JOURNAL_BYTES = 2**36
MAX_SEGMENT_BYTES = 2**32
"""A segment ends with the first group after 64 MiB."""
MAX_TILE_BYTES = 256 * (2 + 65535)
"""Of an entry bundle; a hash tile is smaller."""
MAX_NOTE_BYTES = 2**16
"""Of a checkpoint, with the signatures of many witnesses, and of the mark of a recovery."""

ENTRIES = "entries"
"""Stands in the paths of entry bundles for the tile level."""

TEMPORARY = ".tmp"
"""Ends the names of files that are being written; renamed when they are whole."""
NEW_PREFIX = ".new-"
"""Folders of shards that never got their name."""
_SHARD = re.compile(r"[0-9a-f]{32}")
_SEGMENT = re.compile(r"([0-9]{6}|[1-9][0-9]{6,9})\.seg")


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """The folder of one shard."""

    root: Path

    @property
    def id(self) -> str:
        """The shard id."""
        return self.root.name.removeprefix(NEW_PREFIX)

    lock = Below("lock")
    """Held by the writer."""
    journal = Below("journal")
    """The truth."""
    torn = Below("journal.torn")
    """What recovery cut off the journal."""
    recovered = Below("recovered")
    """Names the entry that tells of the recovery."""
    checkpoint = Below("checkpoint")
    """The published checkpoint."""
    release = Below(RELEASE_FILE)
    """Copy of the server's release bundle."""
    promotion = Below(PROMOTION_FILE)
    """Copy of the server's promotion bundle."""
    payload = Below("payload")
    """Folder of the segments."""
    tiles = Below("tile")
    """Folder of the tiles."""

    def segment(self, number: int) -> Path:
        """Payload segment `number`."""
        return self.payload / f"{number:06d}.seg"

    def segments(self) -> list[Path]:
        """The payload segments that are there, in order."""
        return [self.segment(number) for number in self.segment_numbers()]

    def segment_numbers(self) -> list[int]:
        """Their numbers."""
        found = (_SEGMENT.fullmatch(path.name) for path in self.payload.glob("*.seg"))
        return sorted(int(name[1]) for name in found if name is not None)

    def hash_tile(self, level: int, index: int, width: int = TILE_WIDTH) -> Path:
        """Hash tile `index` of tile level `level`, partial when narrower than 256."""
        return self.tile(str(level), index, width)

    def bundle(self, index: int, width: int = TILE_WIDTH) -> Path:
        """Entry bundle `index`, partial when narrower than 256."""
        return self.tile(ENTRIES, index, width)

    def as_wide(self, kind: str, index: int, width: int) -> Iterator[Path]:
        """Where what a tile holds may lie: in itself, in the full one, or, after a recovery, in a wider one."""
        return (self.tile(kind, index, at) for at in (width, *range(TILE_WIDTH, width, -1)))

    def tile(self, kind: str, index: int, width: int) -> Path:
        """Tile `index` of a tile level (in digits) or of ENTRIES."""
        name = tile_name(index)
        return self.tiles / kind / (name if width == TILE_WIDTH else f"{name}.p/{width}")


def tile_name(index: int) -> str:
    """A tile's number in groups of three digits, all but the last prefixed `x` (C2SP tlog-tiles).

    >>> tile_name(1234067)
    'x001/x234/067'
    """
    name = f"{index % 1000:03d}"
    while index >= 1000:
        index //= 1000
        name = f"x{index % 1000:03d}/{name}"
    return name


def is_shard_id(name: str) -> bool:
    """Is this the name of a shard's folder?"""
    return _SHARD.fullmatch(name) is not None
