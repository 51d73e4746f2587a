"""Audit a shard's tiles: each holds what the journal's entries make, and the published ones are all there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from helix_lineage.audit.workers import ranges, spread
from helix_lineage.errors import ShardError
from helix_lineage.formats import untrusted
from helix_lineage.tlog import merkle, tiles
from helix_lineage.tlog.checkpoint import Checkpoint
from helix_lineage.tlog.layout import ENTRIES, MAX_TILE_BYTES, TEMPORARY, TILE_WIDTH, ShardFolder
from helix_lineage.tlog.tile_files import Tile, files_below, parse_tile

_FILES = 1024
"""Files that a process looks at in one go."""


def check_tiles(
    folder: ShardFolder,
    entries: Sequence[bytes],
    hashes: Sequence[list[bytes]],
    published: Checkpoint | None,
    *,
    beyond: bool,
    torn: bool,
    find: Callable[[str, str], None],
) -> None:
    """Report, with `find(rule, message)`, tiles that are missing, wrong or out of place.

    Args:
        hashes: the entries' leaf hashes, and the roots of their full tiles.
        beyond: tiles of more entries may lie there: the writer went on since the journal was read, or the journal lost
            them, which is reported by its own rule.
        torn: files that were being written may lie there.
    """
    levels, paths = _levels(hashes), sorted(files_below(folder.tiles))

    def look(part: range) -> list[tuple[str, str]]:
        looked = [paths[at] for at in part if not (torn and paths[at].suffix == TEMPORARY)]
        found = (_look(folder, path, entries, levels, beyond=beyond) for path in looked)
        return [finding for finding in found if finding is not None]

    for part in spread(look, ranges(len(paths), _FILES)):
        for finding in part:
            find(*finding)
    there = set(paths)
    for tile in tiles.of_size(min(published.size, len(entries)) if published else 0):
        path = folder.tile(*tile)
        if path in there:
            continue
        stand_in = _first_of(folder.as_wide(*tile))
        if stand_in is None:
            find("tile", f"{path.relative_to(folder.root)} is missing")
        elif (expected := _expected(Tile(*tile), entries, levels)) is not None and not stand_in.startswith(expected):
            find("tile", f"{path.relative_to(folder.root)} is missing, and what stands for it holds something else")


def _look(
    folder: ShardFolder, path: Path, entries: Sequence[bytes], levels: list[list[bytes]], *, beyond: bool
) -> tuple[str, str] | None:
    """What is wrong with a file among the tiles: rule and message. Tiles may be `beyond` the journal."""
    name = path.relative_to(folder.root)
    tile = parse_tile(path.relative_to(folder.tiles))
    expected = None if tile is None else _expected(tile, entries, levels)
    if tile is None or expected is None:
        if tile is None or not beyond:
            return "file", f"{name} does not belong to a shard of {len(entries)} entries"
        return None
    try:
        found = untrusted.read(path, limit=MAX_TILE_BYTES)
    except FileNotFoundError:
        return None  # a living writer removes partial tiles
    except OSError as error:
        return "tile", f"{name} cannot be read: {error.strerror}"
    if found == expected:
        return None
    return "tile", f"{name} does not hold what the journal holds{_first(tile, found, expected)}"


def signed_leaves(folder: ShardFolder, published: Checkpoint) -> list[bytes] | None:
    """The leaf hashes in the tiles, if they make the published root."""
    leaves: list[bytes] = []
    # A key may sign any size: no further than there are tiles.
    while (width := min(TILE_WIDTH, published.size - len(leaves))) > 0:
        data = _first_of(folder.as_wide("0", len(leaves) // TILE_WIDTH, width)) or b""
        if len(data) < 32 * width:
            return None
        leaves += _hashes(data[: 32 * width])
    return leaves if len(leaves) == published.size and merkle.root(leaves) == published.root else None


def _levels(hashes: Sequence[list[bytes]]) -> list[list[bytes]]:
    """Per tile level, the hashes that its tiles hold; the first two are given, the second may be empty."""
    levels = [level for level in hashes if level] or [[]]
    while len(levels[-1]) >= TILE_WIDTH:
        nodes = levels[-1]
        full = len(nodes) // TILE_WIDTH
        levels.append([merkle.root(nodes[TILE_WIDTH * at : TILE_WIDTH * (at + 1)]) for at in range(full)])
    return levels


def _expected(tile: Tile, entries: Sequence[bytes], levels: list[list[bytes]]) -> bytes | None:
    """What the tile holds; None when the log does not reach that far."""
    start, end = tile.index * TILE_WIDTH, tile.index * TILE_WIDTH + tile.width
    if tile.kind == ENTRIES:
        return tiles.encode_bundle(entries[start:end]) if end <= len(entries) else None
    level = int(tile.kind)
    return b"".join(levels[level][start:end]) if level < len(levels) and end <= len(levels[level]) else None


def _read(path: Path) -> bytes | None:
    """The file; None when it is gone, or something else lies in its place."""
    try:
        return untrusted.read(path, limit=MAX_TILE_BYTES)
    except OSError:
        return None


def _first_of(paths: Iterable[Path]) -> bytes | None:
    """The first of some files that is there."""
    return next((data for data in map(_read, paths) if data is not None), None)


def _first(tile: Tile, found: bytes, expected: bytes) -> str:
    """The first differing entry, in words."""
    try:
        split = tiles.decode_bundle if tile.kind == ENTRIES else _hashes
        left, right = split(found), split(expected)
    except ShardError as error:
        return f": {error.what}"
    first = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    what = "entry" if tile.kind in (ENTRIES, "0") else "hash"
    return f", from {what} {tile.index * TILE_WIDTH + first} on"


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + 32] for at in range(0, len(data), 32)]
