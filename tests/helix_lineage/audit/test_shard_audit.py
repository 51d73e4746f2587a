"""What the zeros that a writer lays ahead mean to an audit; and its way to a root."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.audit import audit, shard_audit
from helix_lineage.errors import ShardError
from helix_lineage.shard import payload, writer
from helix_lineage.tlog import merkle
from helix_lineage.tlog.layout import ENTRIES, ShardFolder
from tests.helix_lineage.support import World, die, request


@pytest.mark.parametrize(("path", "rule"), [("journal", "journal-damaged"), ("payload/000000.seg", "payload")])
def test_zeros_stand_only_at_the_end_of_a_shard_that_has_not_ended(world: World, path: str, rule: str) -> None:
    names = world.shard([request(seed=at, count=2) for at in range(3)])
    shard = ShardFolder(world.log_dir / names[0].partition(".")[0])
    assert (shard.root / path).read_bytes() != b""
    with (shard.root / path).open("ab") as file:
        file.write(bytes(100))
    assert rule in {finding.rule for finding in audit(world.log, world.sources).findings}


def test_a_process_that_died_leaves_zeros_and_no_finding(world: World) -> None:
    living = world.open()
    living.append(request(count=3))
    folder = die(living)
    assert folder.journal.read_bytes().endswith(bytes(1000))
    assert folder.segment(0).read_bytes().endswith(bytes(1000))
    assert audit(world.log, world.sources).findings == []
    whole = folder.segment(0).read_bytes()
    folder.segment(0).write_bytes(whole + b"x")
    assert [finding.rule for finding in audit(world.log, world.sources).findings] == ["payload-torn"]
    folder.segment(0).write_bytes(whole[: payload.written(whole)])
    folder.segment(1).write_bytes(b"helix-pay")
    assert [finding.rule for finding in audit(world.log, world.sources).findings] == ["payload-torn"]
    with world.open():
        assert not folder.segment(1).exists()
    assert audit(world.log, world.sources).findings == []


@given(st.integers(1, 3000))
def test_roots_by_tiles_are_the_roots_by_leaves(size: int) -> None:
    entries = [at.to_bytes(2, "big") for at in range(size)]
    leaves, nodes = shard_audit._hashes(entries, range(size))
    shard = shard_audit.AuditedShard(ShardFolder(Path()), leaves=leaves, nodes=nodes)
    for end in {0, 1, size // 2, size - size % 256, size}:
        assert shard.root_at(end) == merkle.root([merkle.leaf_hash(entry) for entry in entries[:end]])


def test_a_process_that_dies_after_its_close_entry_leaves_no_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = world.open()
    living.append(request(count=3))

    def die(*, durable: bool) -> None:
        assert durable
        raise OSError("the power fails")

    monkeypatch.setattr(living, "_publish", die)
    with pytest.raises(ShardError):
        living.close()
    folder = ShardFolder(living.folder)
    assert not folder.journal.read_bytes().endswith(bytes(9))
    assert not folder.segment(0).read_bytes().endswith(bytes(9))
    rules = {finding.rule for finding in audit(world.log, world.sources).findings}
    assert not rules & {"journal-damaged", "journal-torn", "payload", "payload-torn"}
    for torn in ("checkpoint.tmp", "tile/0/000.p/5.tmp"):
        (folder.root / torn).write_bytes(b"as the kill left it")
    assert {finding.rule for finding in audit(world.log, world.sources).findings} == rules
    with world.open():
        pass  # makes it whole
    assert audit(world.log, world.sources).findings == []
    for torn in ("checkpoint.tmp", "tile/0/000.p/5.tmp"):
        (folder.root / torn).write_bytes(b"an untrusted client's")
    assert {finding.rule for finding in audit(world.log, world.sources).findings} == {"file"}


def test_a_shard_is_whole_as_soon_as_it_has_its_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks while a process starts, or after it died there, finds nothing wrong."""
    found: list[str] = []
    rename = writer.rename_folder

    def rename_and_die(path: Path, to: Path) -> None:
        rename(path, to)
        found.extend(str(finding) for finding in audit(world.log, world.sources).findings)
        raise OSError("the power fails")

    monkeypatch.setattr(writer, "rename_folder", rename_and_die)
    with pytest.raises(ShardError, match="the power fails"):
        world.open()
    assert len(world.log.shard_ids()) == 1
    assert found == []
    assert audit(world.log, world.sources).findings == []
    monkeypatch.undo()
    with world.open() as following:
        assert len(following.recovered) == 1
    assert audit(world.log, world.sources).findings == []


@pytest.mark.parametrize("width", [8, 200, 256])
def test_a_wider_tile_stands_for_another_by_what_it_holds(world: World, width: int) -> None:
    """Tiles beyond the journal show that it was cut back; beyond it they are not compared, up to there they are."""
    living = world.open()
    living.append(request(count=6))
    living._publish(durable=False)
    folder = die(living)
    for kind, more in ((ENTRIES, b"\0\1x" * (width - 7)), ("0", bytes(32 * (width - 7)))):
        held = folder.tile(kind, 0, 7).read_bytes()
        folder.tile(kind, 0, 7).unlink()
        folder.tile(kind, 0, width).write_bytes(held + more)
    (cut,) = audit(world.log, world.sources).findings
    assert (cut.rule, f"but tiles of {width} lie here" in cut.message) == ("truncated", True)
    changed = bytearray(folder.tile(ENTRIES, 0, width).read_bytes())
    changed[100] ^= 1
    folder.tile(ENTRIES, 0, width).write_bytes(changed)
    (_, finding) = audit(world.log, world.sources).findings
    assert finding.message == "tile/entries/000.p/7 is missing, and what stands for it holds something else"


@pytest.mark.parametrize("begun", [True, False])
def test_a_segment_that_comes_or_goes_while_files_are_listed_is_no_stranger(
    world: World, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    with world.open() as living:
        living.append(request())
        folder = ShardFolder(living.folder)
        list_files = shard_audit._files_but_tiles

        def change_and_list(of: ShardFolder) -> list[Path]:
            if begun:
                folder.segment(1).write_bytes(b"")
            listed = [*list_files(of), *([] if begun else [folder.segment(1)])]
            monkeypatch.undo()
            return listed

        monkeypatch.setattr(shard_audit, "_files_but_tiles", change_and_list)
        assert [finding for finding in audit(world.log, world.sources).findings if finding.rule == "file"] == []
        folder.segment(1).unlink(missing_ok=True)
        folder.segment(2).write_bytes(b"")
        assert "file" in {finding.rule for finding in audit(world.log, world.sources).findings}
        folder.segment(2).unlink()
