"""What was not said, or said too often: a stored output, a directory's journal, one cause of many findings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helix_lineage.audit import AuditReport, audit
from helix_lineage.directory.source import FolderSource
from helix_lineage.directory.view import load
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import trace
from helix_lineage.shard import payload
from helix_lineage.shard.payload_reader import PayloadReader
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import journal
from helix_lineage.tlog.checkpoint import Checkpoint, sign
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.planted.test_attacks import _command
from tests.helix_lineage.planted.world import World, make_world
from tests.helix_lineage.support import NOW, typed_output


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_world(tmp_path / "world")
    (made.root / "trust.json").write_bytes(made.office.trust_json())
    return made


def test_a_trace_says_that_a_stored_output_misses_its_commitment(world: World) -> None:
    assert _command(world, "trace", world.ids[0])[0] == 0
    shard = ShardFolder(world.log.root / world.ids[0].partition(".")[0])
    place = PayloadReader(shard).output(1)
    other = payload.compress(typed_output("KM0"))
    assert len(other) == len(place.record.body)
    record = payload.pack_record(payload.OUTPUT, 1, place.record.salt, other, at=(0, place.record.input_offset))
    data = shard.segment(0).read_bytes()
    shard.segment(0).write_bytes(data[: place.offset] + record + data[place.offset + len(record) :])
    status, said = _command(world, "trace", world.ids[0])
    assert (status, said["prediction"]["payload"]) == (1, {"input": "kept", "output": "does not meet its commitment"})
    assert trace(world.log, world.ids[0], world.sources).payload_problems == ["output: does not meet its commitment"]
    data = bytearray(data)
    data[place.offset + 70] ^= 1
    shard.segment(0).write_bytes(data)
    status, said = _command(world, "trace", world.ids[0])
    assert status == 1
    assert "checksum" in said["prediction"]["payload"]["output"]


def test_a_release_that_was_removed_is_named_though_it_verifies_from_elsewhere(world: World) -> None:
    """The folder of releases holds it, too."""
    shard = ShardFolder(world.log.root / world.ids[0].partition(".")[0])
    shard.release.unlink()
    (finding,) = world.audit().findings
    assert (finding.rule, finding.shard) == ("release", shard.id)
    assert finding.message.startswith("the shard's copy release.sigstore.json is missing; the release sha256:")
    assert finding.message.endswith("is verified by a copy from elsewhere")


def _directory(report: AuditReport) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == "directory"]


def test_a_directorys_journal_is_read_and_checked(world: World) -> None:
    folder = ShardFolder(world.directory)
    data = folder.journal.read_bytes()
    assert world.audit().passed
    found = journal.parse(data)
    last = found.checkpoints[-2].end
    edited = bytearray(data)
    edited[len(journal.MAGIC) + 200] ^= 1
    forged = sign(Checkpoint(world.office.origin, found.covered, bytes(32)), world.office.key)
    journals = {
        b"": "the journal holds no checkpoint",
        data[:last]: "the journal ends at 7 entries, but 8 were published",
        bytes(edited): "the journal is torn, or damaged, after 0 entries: byte",
        data + b"torn": "the journal is torn, or damaged, after 8 entries: byte",
        data[:last] + journal.frame(journal.ENTRY, b"x") + data[found.checkpoints[-1].end - 300 :]: "the journal",
        data[:-4] + bytes(4): "the journal",
        data
        + journal.frame(journal.CHECKPOINT, forged): "the journal's entries are not those under its checkpoint of 8",
        data + journal.frame(journal.CHECKPOINT, b"junk"): "the journal's checkpoint of 8 entries: a checkpoint is",
    }
    for planted, message in journals.items():
        folder.journal.write_bytes(planted)
        assert [text for text in _directory(world.audit()) if text.startswith(message)], (
            message,
            _directory(world.audit()),
        )
    folder.journal.unlink()
    assert _directory(world.audit()) == ["the journal is missing"]
    folder.journal.write_bytes(data)
    for tile in (folder.bundle(0, 8), folder.hash_tile(0, 0, 8)):
        kept = tile.read_bytes()
        tile.write_bytes(kept[:-1] + b"?")
        assert any(
            text.startswith(f"{tile.relative_to(folder.root)} does not hold") for text in _directory(world.audit())
        )
        tile.unlink()
        assert any("is missing" in text for text in _directory(world.audit()))
        tile.write_bytes(kept)
    assert world.audit().passed


def test_a_directory_of_another_history_is_named(world: World, tmp_path: Path) -> None:
    """The journal of another directory of the same name and key, beside this one's tiles."""
    other = make_world(tmp_path / "other")
    shutil.copy(other.directory / "journal", world.directory / "journal")
    assert "the journal's first 8 entries are not those that were published" in _directory(world.audit())


def test_a_directory_that_runs_may_be_writing(world: World) -> None:
    from helix_lineage.directory.service import Directory  # noqa: PLC0415  (an auditor needs no directory's process)

    running = Directory(world.directory, world.office.origin, world.office.key, world.trust)
    try:
        with (world.directory / "journal").open("ab") as file:
            file.write(journal.frame(journal.ENTRY, b"half a group"))
        assert world.audit().passed
    finally:
        running.close()


def test_of_one_damaged_statement_one_finding_comes_with_a_count(world: World) -> None:
    statements = sorted((world.directory / "statement").iterdir())
    (release,) = [path for path in statements if path.read_bytes() == world.release]
    release.write_bytes(release.read_bytes().replace(b"a", b"b", 1))
    status, report = _command(world, "audit", "--directory", str(world.directory))
    assert status == 1
    (found,) = report["findings"]
    assert found["message"].startswith("entry 0 cannot be read: ")
    # The promotion, and three shards of that release.
    assert found["follow"] == 4
    view = load(FolderSource(world.directory), world.trust, NOW, audited=True)
    assert (len(view.missing), len(view.problems)) == (1, 4)
    assert len(view.book.shards) == 3


def test_a_directory_without_its_checkpoint_or_a_tile_is_a_finding_and_shards_are_reported(world: World) -> None:
    (world.log.root / world.ids[0].partition(".")[0] / "stranger").write_bytes(b"x")
    folder = ShardFolder(world.directory)
    for path in (folder.checkpoint, folder.bundle(0, 8)):
        data = path.read_bytes()
        path.unlink()
        report = world.audit()
        assert {finding.rule for finding in report.findings} == {"directory", "file"}
        assert report.shards == 3
        path.write_bytes(data)


def test_without_a_trust_root_the_journal_is_not_judged(world: World) -> None:
    report = audit(Log(world.log.root), ReleaseSources(), directory_folder=world.directory)
    assert {finding.rule for finding in report.findings} == {"release"}
