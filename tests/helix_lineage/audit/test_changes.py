"""A log that changes while it is audited: what does not hold together because of that is not a finding."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import helix_lineage.audit as audits
from helix_lineage.audit import audit
from helix_lineage.audit.shard_audit import AuditedShard
from helix_lineage.shard import payload
from helix_lineage.shard.payload_reader import PayloadReader, RecordPosition
from helix_lineage.tlog.layout import ShardFolder
from helix_lineage.tlog.tile_files import files_below
from tests.helix_lineage.support import World, die, request

Read = Callable[..., AuditedShard]


class Looks:
    """What is read of which shard, and what happens right after."""

    def __init__(self, patch: pytest.MonkeyPatch, after: Callable[[str], None] = lambda _: None) -> None:
        self.read: list[str] = []
        self._after, self._really = after, audits._read
        patch.setattr(audits, "_read", self._note)

    def _note(self, log: object, name: str, *others: object) -> AuditedShard:
        found = self._really(log, name, *others)  # type: ignore[arg-type]
        self.read.append(name)
        self._after(name)
        return found


def test_a_recovery_by_a_process_that_started_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = world.shard([request()])[0].partition(".")[0]
    living = world.open()
    living.append(request())

    def go_on_and_recover(name: str) -> None:
        if name == living.shard_id and not ShardFolder(living.folder).recovered.exists():
            living.append(request(count=3))
            die(living)
            with world.open() as other:
                assert [found.shard for found in other.recovered] == [living.shard_id]

    looks = Looks(monkeypatch, go_on_and_recover)
    report = audit(world.log, world.sources)
    assert report.findings == []
    assert (report.shards, report.predictions) == (3, 5)
    assert looks.read.count(ended) == 1, "what has ended, and holds, is not read again"
    assert looks.read.count(living.shard_id) == 2


def test_what_is_wrong_in_a_log_that_rests_is_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world.log_dir / world.shard([request()])[0].partition(".")[0]
    (folder / "stranger").write_text("x")
    looks = Looks(monkeypatch)
    report = audit(world.log, world.sources)
    assert [found.rule for found in report.findings] == ["file"]
    assert looks.read == [folder.name]
    assert not any("times over" in note for note in report.notes)


def test_what_is_wrong_in_a_log_that_never_rests_is_believed_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with world.open() as living:
        (Path(living.folder) / "stranger").write_text("x")
        looks = Looks(monkeypatch, lambda _: void(living.append(request())))
        report = audit(world.log, world.sources, progress=told.append)
        assert [found.rule for found in report.findings] == ["file"]
    assert looks.read == [living.shard_id] * 3
    assert sum("changed while it was read" in text for text in told) == 2
    assert any("3 times over" in note for note in report.notes)


def test_a_shard_that_is_erased_in_meanwhile_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended shards change in one way."""
    name = world.shard([request()])[0]
    segment = ShardFolder(world.log_dir / name.partition(".")[0]).segment(0)
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-3] + b"xyz")  # as an eraser's write that has not ended
    looks = Looks(monkeypatch, lambda _: void(segment.write_bytes(whole)))
    assert audit(world.log, world.sources).findings == []
    assert len(looks.read) == 2


def test_a_folder_that_goes_while_files_are_listed_is_empty(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for path in (tmp_path / "file", tmp_path / "inner" / "file"):
        path.write_bytes(b"x")
    found = files_below(tmp_path)
    assert next(found) == tmp_path / "file"
    shutil.rmtree(tmp_path / "inner")
    assert list(found) == []


def test_a_recovery_may_take_the_only_segment_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that died after its first payload and before the entry of it."""
    living = world.open()
    folder = die(living)
    folder.payload.mkdir()
    folder.segment(0).write_bytes(payload.segment_head(folder.id, 1) + b"torn")
    (finding,) = audit(world.log, world.sources).findings
    assert finding.rule == "payload-torn"
    scan = PayloadReader.scan

    def recover_and_scan(reader: PayloadReader, number: int, **how: Any) -> Iterator[RecordPosition]:
        monkeypatch.undo()
        with world.open() as other:
            assert [found.shard for found in other.recovered] == [living.shard_id]
        assert not folder.segment(0).exists()
        return scan(reader, number, **how)

    monkeypatch.setattr(PayloadReader, "scan", recover_and_scan)
    assert audit(world.log, world.sources).findings == []


def void(_: object) -> None:
    """Forget a result."""
