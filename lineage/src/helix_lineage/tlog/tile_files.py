"""The tiles that lie in a folder, whatever the log says of itself: how many entries must there have been?

Tiles are written from entries that the journal holds for good. So tiles of more entries than the journal's last
checkpoint covers show that the journal was cut back to an earlier one, be it together with the published checkpoint.

>>> parse_tile(Path("0/001.p/3"))
Tile(kind='0', index=1, width=3)
>>> parse_tile(Path("0/001.p/3")).entries
259
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.tlog.layout import ENTRIES, TILE_HEIGHT, TILE_WIDTH, ShardFolder, tile_name

_HIGHEST = 7
"""Tile levels of a log of 2^64 entries."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What a tile is called."""

    kind: str
    """A tile level, or `entries`."""
    index: int
    width: int

    @property
    def entries(self) -> int:
        """So many entries the log has, at least."""
        level = 0 if self.kind == ENTRIES else int(self.kind)
        return (self.index * TILE_WIDTH + self.width) << (TILE_HEIGHT * level)


def reach(folder: ShardFolder) -> int:
    """The entries that the log had, by the tiles that lie there; of what is no tile's name, nothing is believed.

    Asked before the journal is read: who writes is always further with the journal than with tiles.
    """
    found = (parse_tile(path.relative_to(folder.tiles)) for path in files_below(folder.tiles))
    return max((tile.entries for tile in found if tile is not None), default=0)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file and every link below a folder. (`Path.rglob` fails on a folder that goes away.)"""
    for top, folders, names in os.walk(folder):
        yield from (Path(top, name) for name in names)
        yield from (path for path in (Path(top, name) for name in folders) if path.is_symlink())


def parse_tile(name: Path) -> Tile | None:
    """The tile that lies under that name below `tile/`; None when no tile has such a name."""
    kind, *rest = name.parts
    width = TILE_WIDTH
    if len(rest) > 1 and rest[-2].endswith(".p"):
        if not _is_number(rest[-1]) or not 0 < int(rest[-1]) < TILE_WIDTH:
            return None
        width, rest = int(rest[-1]), [*rest[:-2], rest[-2].removesuffix(".p")]
    digits = "".join(part.removeprefix("x") for part in rest)
    known = kind == ENTRIES or (_is_number(kind) and int(kind) <= _HIGHEST)
    if not known or not digits.isascii() or not digits.isdigit() or tile_name(int(digits)) != "/".join(rest):
        return None
    return Tile(kind, int(digits), width)


def _is_number(text: str) -> bool:
    """Written as we write it. (There are digits that `int` cannot read.)"""
    return text.isascii() and text.isdigit() and str(int(text)) == text
