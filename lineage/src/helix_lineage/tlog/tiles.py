"""Tiles of a log (C2SP tlog-tiles): what they hold, derived from entries or read back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from helix_lineage.errors import ShardError
from helix_lineage.tlog import merkle
from helix_lineage.tlog.layout import ENTRIES, TILE_HEIGHT, TILE_WIDTH

ReadTile = Callable[[int, int, int], bytes]
"""`(tile level, index, width)` → that many hashes of 32 bytes."""


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry after its length as a big-endian 16-bit integer."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def entry_of(data: bytes, row: int) -> bytes | None:
    """Entry `row` of a bundle; None when the bundle ends before it."""
    position = 0
    while True:
        start = position + 2
        end = start + int.from_bytes(data[position:start], "big")
        if start > len(data) or end > len(data):
            return None
        if row == 0:
            return data[start:end]
        row, position = row - 1, end


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ShardError."""
    entries, position = [], 0
    while position < len(data):
        end = position + 2 + int.from_bytes(data[position : position + 2], "big")
        if position + 2 > len(data) or end > len(data):
            raise ShardError(f"the entry bundle is cut short at byte {position}")
        entries.append(data[position + 2 : end])
        position = end
    return entries


def widths(size: int) -> list[tuple[int, int, int]]:
    """`(tile level, index, width)` of every hash tile of a tree of `size` leaves."""
    found = []
    level, nodes = 0, size
    while nodes:
        full, rest = divmod(nodes, TILE_WIDTH)
        found += [(level, index, TILE_WIDTH) for index in range(full)]
        found += [(level, full, rest)] if rest else []
        level, nodes = level + 1, full
    return found


def of_size(size: int) -> Iterator[tuple[str, int, int]]:
    """`(tile level or ENTRIES, index, width)` of every tile of a log of so many entries."""
    for level, index, width in widths(size):
        yield str(level), index, width
        if level == 0:
            yield ENTRIES, index, width


def hash_tiles(leaves: Sequence[bytes]) -> dict[tuple[int, int, int], bytes]:
    """Every hash tile of the tree over `leaves`: `(tile level, index, width)` → bytes."""
    tiles = {}
    nodes, level = list(leaves), 0
    while nodes:
        chunks = [nodes[start : start + TILE_WIDTH] for start in range(0, len(nodes), TILE_WIDTH)]
        tiles.update({(level, index, len(chunk)): b"".join(chunk) for index, chunk in enumerate(chunks)})
        nodes, level = [merkle.root(chunk) for chunk in chunks if len(chunk) == TILE_WIDTH], level + 1
    return tiles


def subtree_of(size: int, read: ReadTile) -> merkle.Subtree:
    """Subtree roots of a tree of `size` leaves, from its hash tiles. Each tile is read once."""
    cache: dict[tuple[int, int], bytes] = {}

    def subtree(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        first = index << height
        tile, start = divmod(first, TILE_WIDTH)
        if (tile_level, tile) not in cache:
            nodes = size >> (TILE_HEIGHT * tile_level)
            width = min(TILE_WIDTH, nodes - tile * TILE_WIDTH)
            data = read(tile_level, tile, width)
            if len(data) != 32 * width:
                raise ShardError(f"hash tile {tile_level}/{tile} does not hold {width} hashes")
            cache[tile_level, tile] = data
        data = cache[tile_level, tile]
        nodes_here = [data[32 * at : 32 * at + 32] for at in range(start, start + (1 << height))]
        return merkle.root(nodes_here)

    return subtree
