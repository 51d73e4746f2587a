from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import ShardError
from helix_lineage.tlog import merkle, tiles
from helix_lineage.tlog.layout import ShardFolder, is_shard_id, tile_name
from helix_lineage.tlog.tile_writer import TileWriter

_sizes = st.integers(0, 5) | st.integers(250, 520) | st.sampled_from([256, 512, 65536, 65537, 66000])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    assert tiles.decode_bundle(tiles.encode_bundle(entries)) == entries


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=5), st.data())
def test_a_bundle_that_is_cut_short_is_refused_or_a_prefix(entries: list[bytes], data: st.DataObject) -> None:
    whole = tiles.encode_bundle(entries)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(ShardError):
        assert tiles.decode_bundle(cut) == entries[: len(tiles.decode_bundle(cut))]


@given(_sizes)
def test_the_tiles_of_a_size_hold_each_complete_subtree_once(size: int) -> None:
    found = tiles.widths(size)
    for level in range(4):
        assert sum(width for at, _, width in found if at == level) == size >> (8 * level)
    assert all(0 < width <= 256 for _, _, width in found)


@given(st.integers(1, 600), st.data())
def test_proofs_from_tiles_are_those_from_leaves(size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(bytes([at % 256, at // 256])) for at in range(size)]
    stored = tiles.hash_tiles(leaves)
    assert sorted(stored) == sorted(tiles.widths(size))
    subtree = tiles.subtree_of(size, lambda level, index, width: stored[level, index, width])
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.prove_inclusion(index, size, subtree)
    assert proof == merkle.prove_inclusion(index, size, merkle.from_leaves(leaves))
    assert merkle.range_root(0, size, subtree) == merkle.root(leaves)


def test_a_short_tile_is_an_error() -> None:
    with pytest.raises(ShardError, match="does not hold 3 hashes"):
        tiles.subtree_of(3, lambda *_: bytes(64))(0, 0)


@pytest.mark.parametrize(
    ("index", "name"),
    [(0, "000"), (67, "067"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"), (10**6, "x001/x000/000")],
)
def test_tile_names_follow_tlog_tiles(index: int, name: str) -> None:
    assert tile_name(index) == name


def test_paths_follow_tlog_tiles() -> None:
    folder = ShardFolder(Path("log") / ("ab" * 16))
    assert folder.hash_tile(0, 0, 5).relative_to(folder.root) == Path("tile/0/000.p/5")
    assert folder.hash_tile(1, 1234).relative_to(folder.root) == Path("tile/1/x001/234")
    assert folder.bundle(3, 255).relative_to(folder.root) == Path("tile/entries/003.p/255")
    assert is_shard_id(folder.id)
    assert not is_shard_id(".new-" + "ab" * 16)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 65536, 66000])
def test_a_growing_log_publishes_the_tiles_of_its_size(tmp_path: Path, size: int) -> None:
    folder = ShardFolder(tmp_path / ("ab" * 16))
    writer = TileWriter(folder)
    entries = [at.to_bytes(3, "big") for at in range(size)]
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    for at, (entry, leaf) in enumerate(zip(entries, leaves, strict=True)):
        writer.add(entry, leaf)
        if at % 100 == 3 and at < 1000:
            writer.publish(b"note", durable=False)
    writer.publish(b"last note", durable=True)
    assert writer.published == size
    for (level, index, width), data in tiles.hash_tiles(leaves).items():
        assert folder.hash_tile(level, index, width).read_bytes() == data
    for start in range(0, size, 256):
        chunk = entries[start : start + 256]
        assert tiles.decode_bundle(folder.bundle(start // 256, len(chunk)).read_bytes()) == chunk
    assert folder.checkpoint.read_bytes() == b"last note"
    full = [path for path in folder.tiles.rglob("*.p") if (path.parent / path.name.removesuffix(".p")).exists()]
    assert full == []
