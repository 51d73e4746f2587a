"""Which tile a name means, and how many entries it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.tlog.layout import ShardFolder
from helix_lineage.tlog.tile_files import parse_tile, reach
from helix_lineage.tlog.tiles import of_size


@given(st.integers(min_value=1, max_value=2**20))
def test_the_tiles_of_a_log_show_all_of_its_entries_and_no_more(size: int) -> None:
    folder, shown = ShardFolder(Path("/shard")), []
    for named in of_size(size):
        tile = parse_tile(folder.tile(*named).relative_to(folder.tiles))
        assert tile is not None
        assert (tile.kind, tile.index, tile.width) == named
        shown.append(tile.entries)
    assert max(shown) == size


@pytest.mark.parametrize(
    "name", ["0/000.p/0", "0/000.p/256", "0/000.p/01", "0/000.p/²", "x/000", "8/000", "0/1", "0/x000/000", "0", "0/²"]
)
def test_what_is_no_tiles_name_shows_nothing(name: str, tmp_path: Path) -> None:
    assert parse_tile(Path(name)) is None
    path = tmp_path / "tile" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert reach(ShardFolder(tmp_path)) == 0


def test_a_log_without_tiles_shows_nothing(tmp_path: Path) -> None:
    assert reach(ShardFolder(tmp_path)) == 0
