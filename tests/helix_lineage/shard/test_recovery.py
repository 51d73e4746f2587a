from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from helix_lineage.audit import audit
from helix_lineage.shard import ShardWriter, entries, recovery, writer as shard_writer
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import journal
from helix_lineage.tlog.disk import FolderLock
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.support import Signer, World, die, make_chain, request


def _die(world: World, requests: int = 3, *, publish: bool = True) -> ShardFolder:
    """A shard whose process died: as its files lie when nothing was closed."""
    writer = world.open()
    for _ in range(requests):
        writer.append(request(count=2))
    if publish:
        writer._publish(durable=False)
    return die(writer)


@pytest.fixture
def dead(world: World) -> ShardFolder:
    return _die(world)


def test_a_restart_recovers_the_dead_shard_under_its_own_key(world: World, dead: ShardFolder) -> None:
    with world.open() as writer:
        (found,) = writer.recovered
    assert found.entry is not None
    assert (found.shard, found.entry.size, found.entry.torn_bytes) == (dead.id, 7, 0)
    told = entries.decode(world.log.shard(writer.shard_id).entry(1))
    assert told == found.entry
    assert dead.recovered.read_text() == f"{writer.shard_id}.1\n"
    assert audit(world.log, world.sources).findings == []


def test_who_starts_while_a_shard_is_recovered_leaves_it_alone(
    world: World, dead: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, others = ShardWriter._tell, []

    def start_another_and_tell(writer: ShardWriter, entry: bytes) -> str:
        monkeypatch.undo()
        with world.open() as other:
            others.append(other.recovered)
        return tell(writer, entry)

    monkeypatch.setattr(ShardWriter, "_tell", start_another_and_tell)
    with world.open() as writer:
        assert [found.shard for found in writer.recovered] == [dead.id]
    assert others == [()]
    assert dead.recovered.read_text() == f"{writer.shard_id}.1\n"
    assert audit(world.log, world.sources).findings == []


def test_who_reads_while_a_shard_is_recovered_finds_tiles_for_its_checkpoint(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is there is of a tile that goes, because the journal came further."""
    monkeypatch.setattr(shard_writer, "PUBLISH_SECONDS", 1000)
    dead = _die(world, publish=False)
    published, found = dead.checkpoint.read_bytes(), list[str]()
    remove = recovery.remove_tree

    def look() -> None:
        assert dead.checkpoint.read_bytes() == published
        found.extend(str(item) for item in audit(world.log, world.sources).findings)

    def remove_and_look(path: Path, **how: Any) -> None:
        look()
        remove(path, **how)
        look()

    assert dead.bundle(0, 1).exists()
    monkeypatch.setattr(recovery, "remove_tree", remove_and_look)
    with world.open() as writer:
        assert [told.shard for told in writer.recovered] == [dead.id]
    assert not dead.bundle(0, 1).exists()
    assert found == []


@pytest.mark.parametrize("laid", [0, 5000])
def test_a_torn_tail_is_cut_off_kept_and_told(world: World, dead: ShardFolder, laid: int) -> None:
    """Whether it ends the file or stands in the zeros that its writer had preallocated."""
    data = dead.journal.read_bytes()
    whole = data[: journal.parse(data).intact]
    torn = journal.frame(journal.ENTRY, b"an entry without its checkpoint") + b"\x07"
    dead.journal.write_bytes(whole + torn + bytes(laid))
    before = audit(world.log, world.sources)
    assert [finding.rule for finding in before.findings] == ["journal-torn"]
    with world.open() as writer:
        (found,) = writer.recovered
    assert found.entry is not None
    assert found.entry.torn_bytes == len(torn)
    assert dead.journal.read_bytes() == whole
    assert dead.torn.read_bytes() == torn
    assert audit(world.log, world.sources).findings == []


def test_missing_and_torn_tiles_are_derived_again(world: World, dead: ShardFolder) -> None:
    shutil.rmtree(dead.tiles)
    (dead.root / "tile/0").mkdir(parents=True)
    (dead.root / "tile/0/000.tmp").write_bytes(b"torn")
    dead.checkpoint.unlink()
    with world.open():
        pass
    shard = world.log.shard(dead.id)
    assert shard.published[1].size == 7
    assert all(shard.inclusion(at).holds for at in range(7))
    assert audit(world.log, world.sources).findings == []


def test_what_stands_where_tiles_belong_makes_way(world: World, dead: ShardFolder, tmp_path: Path) -> None:
    """A folder in a tile's place, a file in a folder's, and a link that would lead elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for tile in (dead.bundle(0, 7), dead.hash_tile(0, 0, 7)):
        tile.unlink()
    dead.hash_tile(0, 0, 7).mkdir()
    shutil.rmtree(dead.bundle(0, 7).parent)
    dead.bundle(0, 7).parent.write_bytes(b"a file")
    with world.open() as writer:
        assert [told.shard for told in writer.recovered] == [dead.id]
    assert audit(world.log, world.sources).findings == []
    dead.recovered.unlink()
    shutil.rmtree(dead.tiles)
    dead.tiles.symlink_to(elsewhere)
    with world.open() as writer:
        assert [told.shard for told in writer.recovered] == [dead.id]
    assert list(elsewhere.iterdir()) == []
    assert audit(world.log, world.sources).findings == []


def test_payload_that_no_entry_tells_of_is_cut_off(world: World, dead: ShardFolder) -> None:
    whole = dead.segment(0).read_bytes()
    data = dead.journal.read_bytes()
    found = journal.parse(data)
    dead.journal.write_bytes(data[: found.checkpoints[-2].end])  # the last group's entries never reached the disk
    shutil.rmtree(dead.tiles)
    dead.checkpoint.unlink()
    with world.open() as writer:
        (found,) = writer.recovered
    assert found.entry is not None
    assert found.entry.size == 5
    assert whole.startswith(dead.segment(0).read_bytes())
    assert len(dead.segment(0).read_bytes()) < len(whole)
    assert audit(world.log, world.sources).findings == []


@pytest.mark.parametrize("torn", [b"", bytes(200), b"helix.example/shard/"])
def test_a_published_checkpoint_that_a_power_cut_tore_is_made_again(
    world: World, dead: ShardFolder, torn: bytes
) -> None:
    dead.checkpoint.write_bytes(torn)
    with world.open() as writer:
        (found,) = writer.recovered
    assert found.entry is not None
    assert world.log.shard(dead.id).published[1].size == 7
    assert audit(world.log, world.sources).findings == []


@pytest.mark.parametrize("head", [b"", b"helix-pay", bytes(44)])
def test_a_segment_that_was_being_made_hides_nothing(world: World, dead: ShardFolder, head: bytes) -> None:
    dead.segment(1).write_bytes(head)
    assert all(world.log.shard(dead.id).payload(at).output is not None for at in range(1, 7))
    with world.open():
        pass
    assert not dead.segment(1).exists()
    assert audit(world.log, world.sources).findings == []


def test_a_damaged_journal_is_left_alone_and_named(world: World, dead: ShardFolder) -> None:
    data = bytearray(dead.journal.read_bytes())
    data[journal.parse(bytes(data)).checkpoints[1].end + 20] ^= 1
    dead.journal.write_bytes(data)
    with world.open() as writer:
        (found,) = writer.recovered
    assert found.entry is None
    assert found.problem is not None
    assert "7 entries were published" in found.problem
    assert dead.journal.read_bytes() == data
    assert {finding.shard for finding in audit(world.log, world.sources).findings} == {dead.id}


def test_a_shard_is_recovered_once(world: World, dead: ShardFolder) -> None:
    with world.open() as first:
        assert len(first.recovered) == 1
    with world.open() as second:
        assert second.recovered == ()


def test_living_and_closed_shards_are_left_alone(world: World, dead: ShardFolder) -> None:
    lock = FolderLock(dead.lock)
    closed = world.shard([request()])
    with world.open() as writer:
        assert writer.recovered == ()
    lock.release()
    with world.open() as writer:
        assert [told.shard for told in writer.recovered] == [dead.id]
    assert not ShardFolder(world.log_dir / closed[0].partition(".")[0]).recovered.exists()


def test_a_shard_that_closed_but_did_not_publish_needs_no_recovery(world: World) -> None:
    (name,) = world.shard([request()])
    folder = ShardFolder(world.log_dir / name.partition(".")[0])
    shutil.rmtree(folder.tiles)
    folder.checkpoint.unlink()
    with world.open() as writer:
        assert writer.recovered == ()
    assert world.log.shard(folder.id).published[1].size == 3
    assert audit(world.log, world.sources).findings == []


def test_a_shard_that_was_never_opened_is_removed(world: World) -> None:
    unpublished = world.log_dir / (".new-" + "ab" * 16)
    unpublished.mkdir(parents=True)
    (unpublished / "journal").write_bytes(b"helix")
    assert "never opened" in audit(world.log, world.sources).notes[0]
    with world.open():
        assert not unpublished.exists()


@pytest.fixture(scope="module")
def dead_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, ShardFolder]]:
    world = World(tmp_path_factory.mktemp("dead"), make_chain(), Signer())
    yield world, _die(world, publish=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(data=st.data())
def test_wherever_the_power_fails_recovery_keeps_whole_groups(
    dead_once: tuple[World, ShardFolder], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The journal is cut anywhere after its header, zeros may follow; nothing was published."""
    origin, folder = dead_once
    world = World(tmp_path_factory.mktemp("cut"), origin.chain, origin.signer)
    shutil.copytree(origin.log_dir, world.log_dir)
    copy = ShardFolder(world.log_dir / folder.id)
    whole = copy.journal.read_bytes()
    covered = journal.parse(whole).checkpoints
    cut = data.draw(st.integers(covered[0].end, covered[-1].end))
    junk = data.draw(st.binary(max_size=30))
    copy.journal.write_bytes(whole[:cut] + junk + bytes(data.draw(st.integers(0, 300))))
    shutil.rmtree(copy.tiles)
    copy.checkpoint.unlink()
    with world.open() as writer:
        (found,) = writer.recovered
    assert found.entry is not None
    assert found.entry.size == max(item.size for item in covered if item.end <= cut)
    assert audit(Log(world.log_dir), world.sources).findings == []
    shutil.rmtree(world.root, ignore_errors=True)


def test_writing_beside_a_log_of_other_files(world: World) -> None:
    world.log_dir.mkdir()
    (world.log_dir / "README").write_text("hello")
    (world.log_dir / "sub").mkdir()
    with world.open() as writer:
        assert writer.recovered == ()
    assert Path(world.log_dir / "README").exists()
