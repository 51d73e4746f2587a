from __future__ import annotations

import pytest

from helix_lineage.errors import LineageError, PredictionNotFound, ShardError
from helix_lineage.shard import payload
from helix_lineage.shard.payload_reader import PayloadReader, erase
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog.layout import ENTRIES, ShardFolder
from tests.helix_lineage.support import World, request


def test_a_point_look_up_reads_tiles_and_not_the_journal(world: World) -> None:
    names = world.shard([request(seed=at, count=50) for at in range(12)])
    shard, sequence = world.log.find(names[400])
    assert shard.prediction(sequence).seed == 8
    assert shard.inclusion(sequence).holds
    assert shard.payload(sequence).output is not None
    assert "journal" not in shard.__dict__


def test_entries_that_are_not_published_yet_come_from_the_journal(world: World) -> None:
    names = world.shard([request(count=3)])
    shard = world.log.shard(names[0].partition(".")[0])
    shard.folder.checkpoint.unlink()
    again = world.log.shard(shard.id)
    assert again.entry(2) == shard.entry(2)
    assert again.inclusion(2).holds
    assert again.size == 5


@pytest.mark.parametrize("wider", [7, 200, 256])
def test_a_partial_tile_may_have_made_room_for_a_wider_one(world: World, wider: int) -> None:
    names = world.shard([request(count=3)])
    shard = world.log.shard(names[0].partition(".")[0])
    assert shard.published[1].size == 5
    entries, proof = [shard.entry(at) for at in range(5)], shard.inclusion(3)
    for kind, more in ((ENTRIES, b"\0\1x" * (wider - 5)), ("0", bytes(32 * (wider - 5)))):
        narrow, wide = shard.folder.tile(kind, 0, 5), shard.folder.tile(kind, 0, wider)
        wide.write_bytes(narrow.read_bytes() + more)
        narrow.unlink()
    again = world.log.shard(shard.id)
    assert [again.entry(at) for at in range(5)] == entries
    assert again.inclusion(3) == proof
    wide.unlink()
    with pytest.raises(ShardError, match=r"a tile is missing .*tile/0/000.p/5"):
        world.log.shard(shard.id).inclusion(3)


def test_what_is_not_there_is_said(world: World) -> None:
    names = world.shard([request()])
    shard = names[0].partition(".")[0]
    for missing in (f"{shard}.9", f"{'0' * 32}.1"):
        with pytest.raises(PredictionNotFound):
            found, sequence = world.log.find(missing)
            found.prediction(sequence)
    for no_prediction in (0, 2):  # the header, and the close entry
        with pytest.raises(PredictionNotFound, match="not a prediction"):
            world.log.shard(shard).prediction(no_prediction)
    with pytest.raises(ShardError, match="not a prediction id"):
        world.log.find("x")
    with pytest.raises(PredictionNotFound):
        world.log.shard("..")
    assert Log(world.root / "nowhere").shard_ids() == []


def test_a_shard_under_another_name_is_refused(world: World) -> None:
    names = world.shard([request()])
    folder = world.log_dir / names[0].partition(".")[0]
    other = folder.with_name("0" * 32)
    folder.rename(other)
    with pytest.raises(ShardError, match="makes the id"):
        Shard(other)


def test_an_entry_edited_in_its_tile_has_no_proof(world: World) -> None:
    names = world.shard([request(count=3)])
    shard = world.log.shard(names[0].partition(".")[0])
    path = shard.folder.bundle(0, 5)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    again = world.log.shard(shard.id)
    with pytest.raises(LineageError, match="not the one under the signed checkpoint"):
        for sequence in range(1, 5):
            again.inclusion(sequence)


def test_a_checkpoint_by_another_key_is_refused(world: World) -> None:
    one, two = (world.shard([request()])[0].partition(".")[0] for _ in range(2))
    first, second = (ShardFolder(world.log_dir / name) for name in (one, two))
    first.checkpoint.write_bytes(second.checkpoint.read_bytes())
    with pytest.raises(LineageError, match="another log"):
        world.log.shard(one).inclusion(1)


def test_erasing_an_output_keeps_the_input_and_the_salt(world: World) -> None:
    names = world.shard([request(count=2)])
    shard = world.log.shard(names[0].partition(".")[0])
    size = shard.folder.segment(0).stat().st_size
    erase(shard.folder, 1)
    kept = world.log.shard(shard.id).payload(1)
    assert kept.output is None
    assert kept.input is not None
    assert kept.output_salt is not None
    assert world.log.shard(shard.id).payload(2).output is not None
    assert shard.folder.segment(0).stat().st_size == size


def test_erasing_the_link_takes_input_and_salts_of_the_whole_request(world: World) -> None:
    items = request(count=2)
    names = world.shard([items])
    shard = world.log.shard(names[0].partition(".")[0])
    erase(shard.folder, 1, link=True)
    one, two = (world.log.shard(shard.id).payload(at) for at in (1, 2))
    assert (one.input, one.output, one.input_salt, one.output_salt) == (None, None, None, None)
    assert two.input is None
    assert two.output is not None
    data = shard.folder.segment(0).read_bytes()
    assert items[0].input not in data


def test_payload_of_a_growing_segment_is_found(world: World) -> None:
    with world.open() as writer:
        writer.append(request())
        shard = world.log.shard(writer.shard_id)
        assert shard.payload(1).output is not None
        writer.append(request())
        assert shard.payloads.read(2).output is not None
        with pytest.raises(ShardError, match="no payload is kept of item 3"):
            shard.payload(3)


def test_a_damaged_payload_is_an_error(world: World) -> None:
    names = world.shard([request()])
    shard = world.log.shard(names[0].partition(".")[0])
    path = shard.folder.segment(0)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="checksum"):
        shard.payload(1)
    path.unlink()
    with pytest.raises(ShardError, match="no payload"):
        world.log.shard(shard.id).payload(1)


def test_a_record_that_is_half_written_misleads_no_later_look(world: World) -> None:
    """In the zeros that are preallocated no file size tells how far a record has come."""
    with world.open() as writer:
        writer.append(request())
        folder = ShardFolder(writer.folder)
        reader = PayloadReader(folder)
        end = payload.written(folder.segment(0).read_bytes())
        with folder.segment(0).open("r+b") as file:
            file.seek(end)
            file.write(b"\x01\0\0\0\x02")  # of a longer record the first bytes: by them, it would be a short one
        assert reader.read(1).output is not None
        writer.append(request())
        assert reader.read(2).output is not None
