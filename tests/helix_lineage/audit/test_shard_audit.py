"""What the zeros that a writer lays ahead mean to an audit; and its way to a root."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_lineage import merkle
from helix_lineage.audit import audit, shard_audit
from helix_lineage.errors import ShardError
from helix_lineage.shard.layout import ShardFolder
from tests.helix_lineage.support import World, request


@pytest.mark.parametrize(("path", "rule"), [("journal", "journal-damaged"), ("payload/000000.seg", "payload")])
def test_zeros_stand_only_at_the_end_of_a_shard_that_has_not_ended(world: World, path: str, rule: str) -> None:
    names = world.shard([request(seed=at, count=2) for at in range(3)])
    shard = ShardFolder(world.log_dir / names[0].partition(".")[0])
    assert (shard.root / path).read_bytes() != b""
    with (shard.root / path).open("ab") as file:
        file.write(bytes(100))
    assert rule in {finding.rule for finding in audit(world.log, world.sources).findings}


def test_a_process_that_died_leaves_zeros_and_no_finding(world: World) -> None:
    with world.open() as writer:
        writer.append(request(count=3))
        copy = world.root / "copy"
        shutil.copytree(writer.folder, copy)
    shutil.rmtree(writer.folder)
    copy.rename(writer.folder)
    folder = ShardFolder(writer.folder)
    assert folder.journal.read_bytes().endswith(bytes(1000))
    assert folder.segment(0).read_bytes().endswith(bytes(1000))
    assert audit(world.log, world.sources).findings == []
    folder.segment(0).write_bytes(folder.segment(0).read_bytes() + b"x")
    assert audit(world.log, world.sources).findings != []


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
    writer = world.open()
    writer.append(request(count=3))

    def die(*, durable: bool) -> None:
        assert durable
        raise OSError("the power fails")

    monkeypatch.setattr(writer, "_publish", die)
    with pytest.raises(ShardError):
        writer.close()
    folder = ShardFolder(writer.folder)
    assert not folder.journal.read_bytes().endswith(bytes(9))
    assert not folder.segment(0).read_bytes().endswith(bytes(9))
    rules = {finding.rule for finding in audit(world.log, world.sources).findings}
    assert not rules & {"journal-damaged", "journal-torn", "payload"}
