"""The quick look at payloads: it believes what the long way believes, and nothing else."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from helix_lineage.audit import audit, payload_check
from helix_lineage.audit.payload_check import count_erased
from helix_lineage.shard import payload
from helix_lineage.shard.payload_reader import PayloadReader, erase
from helix_lineage.shard.reader import Shard
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.support import Signer, World, make_chain, request

COUNTS = (3, 1, 4, 2)


@pytest.fixture
def shard(world: World) -> Shard:
    name = world.shard([request(count=count) for count in COUNTS])[0]
    return world.log.find(name)[0]


def _look(shard: Shard) -> int | None:
    entries = shard.journal.entries
    return count_erased(shard.folder, entries, array("Q", range(1, len(entries) - 1)))


def test_an_honest_payload_holds(shard: Shard) -> None:
    assert _look(shard) == 0


def test_shares_of_a_segment_are_looked_at_apart(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_check, "_PART_BYTES", 200)
    assert len(list(payload_check._cut(shard.folder, 0))) == len(COUNTS)
    assert _look(shard) == 0


def test_an_input_in_an_earlier_segment_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "SEGMENT_BYTES", 1)
    first, second, third = request(count=3)
    with world.open() as writer:
        for item in (first, second, third):
            writer.append([item])
        found = Shard(world.log_dir / writer.shard_id)
    assert len(found.folder.segments()) == 3
    assert _look(found) == 0
    assert audit(world.log, world.sources).findings == []


def test_what_was_erased_is_counted(shard: Shard) -> None:
    erase(shard.folder, 1)
    erase(shard.folder, 4, link=True)
    assert _look(shard) == 3


def test_a_prediction_without_payload_needs_a_closer_look(shard: Shard) -> None:
    shard.folder.segment(0).unlink()
    assert _look(shard) is None


def test_the_payload_of_another_needs_a_closer_look(shard: Shard) -> None:
    """Right checksums, wrong values: the planted fault that only commitments show."""
    reader = PayloadReader(shard.folder)
    one, other = reader.output(1), reader.output(2)
    swapped = payload.PayloadRecord(
        payload.OUTPUT, 1, other.record.salt, other.record.body, 0, one.record.input_segment, one.record.input_offset
    ).to_bytes()
    data = bytearray(shard.folder.segment(0).read_bytes())
    assert len(swapped) == len(one.record.to_bytes())
    data[one.offset : one.offset + len(swapped)] = swapped
    shard.folder.segment(0).write_bytes(data)
    assert _look(shard) is None


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shard, bytes]:
    world = World(tmp_path_factory.mktemp("honest"), make_chain(), Signer())
    shard = world.log.find(world.shard([request(count=count) for count in COUNTS])[0])[0]
    return shard, shard.folder.segment(0).read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_any_changed_byte_needs_a_closer_look(honest: tuple[Shard, bytes], data: st.DataObject) -> None:
    shard, whole = honest
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert _with(shard.folder, shard, bytes(changed), whole) is None


@settings(max_examples=50)
@given(data=st.data())
def test_any_cut_segment_needs_a_closer_look(honest: tuple[Shard, bytes], data: st.DataObject) -> None:
    shard, whole = honest
    assert _with(shard.folder, shard, whole[: data.draw(st.integers(0, len(whole) - 1))], whole) is None


def _with(folder: ShardFolder, shard: Shard, data: bytes, whole: bytes) -> int | None:
    path: Path = folder.segment(0)
    path.write_bytes(data)
    try:
        return _look(shard)
    finally:
        path.write_bytes(whole)
