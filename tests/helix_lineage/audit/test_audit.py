from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings, strategies as st

from helix_lineage.audit import RULES, AuditReport, audit
from helix_lineage.audit.findings import compare
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.records.store import RecordStore
from helix_lineage.shard import ShardWriter, entries
from helix_lineage.shard.payload import SEGMENT_HEAD_BYTES, segment_head
from helix_lineage.shard.payload_reader import erase
from helix_lineage.tlog import journal, merkle, tiles
from helix_lineage.tlog.checkpoint import SHARD_ORIGIN, Checkpoint, sign
from helix_lineage.tlog.layout import ShardFolder
from helix_lineage.tlog.tile_writer import TileWriter
from tests.helix_lineage.support import Signer, World, make_chain, request

Edit = Callable[[list[bytes]], list[bytes]]


@pytest.fixture
def shard(world: World) -> ShardFolder:
    """Header, six predictions in three groups, close."""
    names = world.shard([request(seed=at, count=2) for at in range(3)])
    return ShardFolder(world.log_dir / names[0].partition(".")[0])


def _rules(report: AuditReport) -> list[tuple[str, int | None]]:
    assert all(finding.rule in RULES for finding in report.findings)
    return [(finding.rule, finding.sequence) for finding in report.findings]


def _rewrite(folder: ShardFolder, edit: Edit, *, with_tiles: bool = False, regroup: bool = False) -> None:
    """What somebody without the key can do: other entries, right checksums, the old checkpoints."""
    found = journal.parse(folder.journal.read_bytes())
    rows = edit(list(found.entries))
    sizes = [covered.size for covered in found.checkpoints]
    data, done = journal.MAGIC, 0
    for covered, size in zip(found.checkpoints, sizes, strict=True):
        if regroup and size > len(rows):
            continue
        upto = len(rows) if covered is found.checkpoints[-1] else min(size, len(rows))
        data += b"".join(journal.frame(journal.ENTRY, row) for row in rows[done:upto])
        data += journal.frame(journal.CHECKPOINT, covered.note)
        done = upto
    folder.journal.write_bytes(data)
    if with_tiles:
        note = folder.checkpoint.read_bytes()
        shutil.rmtree(folder.tiles)
        writer = TileWriter(folder)
        for row in rows:
            writer.add(row, merkle.leaf_hash(row))
        writer.publish(note, durable=False)


def _edited(rows: list[bytes], at: int = 3) -> list[bytes]:
    entry = entries.decode(rows[at])
    assert isinstance(entry, entries.PredictionEntry)
    rows[at] = replace(entry, seed=999).to_bytes()
    return rows


def _dropped(rows: list[bytes]) -> list[bytes]:
    return rows[:3] + rows[4:]


def _swapped(rows: list[bytes]) -> list[bytes]:
    rows[2], rows[5] = rows[5], rows[2]
    return rows


def test_an_honest_log_has_no_findings(world: World, shard: ShardFolder) -> None:
    report = audit(world.log, world.sources)
    assert report.findings == []
    assert report.passed
    assert (report.shards, report.entries, report.predictions) == (1, 8, 6)
    assert report.notes == [f"{shard.id}: mode local, no promotion"]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [(_edited, [("entry-edited", 3)]), (_dropped, [("entry-dropped", 3)]), (_swapped, [("entry-reordered", 2)])],
)
def test_a_changed_journal_is_found_and_the_entry_named(
    world: World, shard: ShardFolder, edit: Edit, expected: list[tuple[str, int]]
) -> None:
    _rewrite(shard, edit)
    report = audit(world.log, world.sources)
    assert set(expected) <= set(_rules(report))
    assert any(
        "entry 3" in item.message or "2 (which was 5), 5 (which was 2)" in item.message for item in report.findings
    )


@pytest.mark.parametrize(
    ("edit", "rule", "sequences"),
    [(_edited, "entries-differ", {3}), (_dropped, "entries-differ", {3}), (_swapped, "entries-differ", {1})],
)
def test_a_changed_journal_with_tiles_to_match_is_found_by_the_checkpoints(
    world: World, shard: ShardFolder, edit: Edit, rule: str, sequences: set[int]
) -> None:
    _rewrite(shard, edit, with_tiles=True)
    found = [item for item in audit(world.log, world.sources).findings if item.rule == rule]
    assert {item.sequence for item in found} == sequences
    assert "under the checkpoint of size" in found[0].message


def test_the_last_entry_dropped_with_tiles_to_match(world: World, shard: ShardFolder) -> None:
    _rewrite(shard, lambda rows: rows[:-1], with_tiles=True)
    assert "entry-dropped" in [rule for rule, _ in _rules(audit(world.log, world.sources))]


def test_a_group_of_one_names_its_entry_even_without_tiles(world: World) -> None:
    names = world.shard([request(seed=at) for at in range(5)])
    folder = ShardFolder(world.log_dir / names[0].partition(".")[0])
    _rewrite(folder, _edited, with_tiles=True)
    assert ("entry-edited", 3) in _rules(audit(world.log, world.sources))


def _truncate(folder: ShardFolder, size: int) -> None:
    """What somebody who owns the disk can do: an older state, consistent in itself."""
    data = folder.journal.read_bytes()
    found = journal.parse(data)
    last = max((covered for covered in found.checkpoints if covered.size <= size), key=lambda covered: covered.size)
    folder.journal.write_bytes(data[: last.end])
    shutil.rmtree(folder.tiles)
    writer = TileWriter(folder)
    for row in found.entries[: last.size]:
        writer.add(row, merkle.leaf_hash(row))
    writer.publish(last.note, durable=False)
    for path in folder.segments():
        path.unlink()


def test_a_shard_below_a_checkpoint_kept_elsewhere_is_found(world: World, shard: ShardFolder) -> None:
    kept = shard.checkpoint.read_bytes()
    _truncate(shard, 1)
    assert audit(world.log, world.sources).findings == []  # looks whole: this is what checkpoints elsewhere are for
    report = audit(world.log, world.sources, checkpoints=[("kept/checkpoint", kept)])
    (finding,) = report.findings
    assert finding.rule == "truncated"
    assert finding.shard == shard.id
    assert finding.message == "kept/checkpoint: the shard was truncated: it has 1 entries, but its key signed 8"


def test_a_kept_checkpoint_of_an_honest_shard_holds(world: World, shard: ShardFolder) -> None:
    notes = [covered.note for covered in journal.parse(shard.journal.read_bytes()).checkpoints]
    report = audit(world.log, world.sources, checkpoints=[(str(at), note) for at, note in enumerate(notes)])
    assert report.findings == []
    assert report.checkpoints == 5


def test_kept_checkpoints_that_do_not_belong(world: World, shard: ShardFolder) -> None:
    key = Ed25519PrivateKey.generate()
    foreign = sign(Checkpoint(SHARD_ORIGIN + shard.id, 3, bytes(32)), key)
    absent = sign(Checkpoint(SHARD_ORIGIN + "0" * 32, 3, bytes(32)), key)
    report = audit(world.log, world.sources, checkpoints=[("a", foreign), ("b", absent), ("c", b"junk")])
    assert [finding.rule for finding in report.findings] == ["checkpoint", "shard-missing", "checkpoint"]


def test_a_fork_by_the_process_itself_is_found(world: World) -> None:
    """A process that lies keeps its key: it signs another history, which only a kept checkpoint shows."""
    writer = world.open()
    writer.append(request(count=2))
    kept = sign(Checkpoint(SHARD_ORIGIN + writer.shard_id, 2, b"\1" * 32), writer._key)
    writer.close()
    report = audit(world.log, world.sources, checkpoints=[("kept", kept)])
    assert [finding.rule for finding in report.findings] == ["forked"]


def _die(world: World, writer: ShardWriter) -> None:
    """The shard of a process that was killed: published, and never closed."""
    writer._publish(durable=False)
    copy = world.root / "copy"
    shutil.copytree(writer._folder.root, copy)
    writer.close()
    shutil.rmtree(writer._folder.root)
    copy.rename(writer._folder.root)


def test_a_shard_cut_below_what_its_successor_recovered(world: World) -> None:
    writer = world.open()
    for _ in range(3):
        writer.append(request())
    _die(world, writer)
    with world.open() as successor:
        pass
    assert audit(world.log, world.sources).findings == []
    _truncate(writer._folder, 1)
    (finding,) = audit(world.log, world.sources).findings
    assert (finding.rule, finding.shard) == ("truncated", writer.shard_id)
    assert finding.message.startswith("the shard has 1 entries, but")
    shutil.rmtree(writer._folder.root)
    (finding,) = audit(world.log, world.sources).findings
    assert (finding.rule, finding.shard) == ("shard-missing", writer.shard_id)
    assert successor.shard_id in finding.message


def test_the_mark_of_a_recovery_must_be_true(world: World, shard: ShardFolder) -> None:
    for text in (b"nonsense", f"{shard.id}.1\n".encode(), f"{'0' * 32}.1\n".encode(), b"\xff"):
        shard.recovered.write_bytes(text)
        assert [finding.rule for finding in audit(world.log, world.sources).findings] == ["recovery"]


def test_tiles_are_the_journals(world: World, shard: ShardFolder) -> None:
    path = shard.bundle(0, 8)
    rows = tiles.decode_bundle(path.read_bytes())
    rows[4] = entries.Close(1).to_bytes()
    path.write_bytes(tiles.encode_bundle(rows))
    (finding,) = audit(world.log, world.sources).findings
    assert finding.rule == "tile"
    assert finding.message == "tile/entries/000.p/8 does not hold what the journal holds, from entry 4 on"
    path.unlink()
    (finding,) = audit(world.log, world.sources).findings
    assert finding.message == "tile/entries/000.p/8 is missing"


def test_files_that_do_not_belong_are_named(world: World, shard: ShardFolder) -> None:
    (shard.root / "notes.txt").write_text("x")
    (shard.tiles / "0" / "x").write_text("x")
    (shard.tiles / "0" / "000").write_bytes(bytes(32 * 256))
    (shard.payload / "000009.seg").write_bytes(b"")
    messages = [finding.message for finding in audit(world.log, world.sources).findings]
    assert "notes.txt does not belong to a shard" in messages
    assert "tile/0/x does not belong to a shard of 8 entries" in messages
    assert any("8 entries, but tiles of 256 lie here" in message for message in messages)
    assert "payload/000009.seg does not belong to a shard" in messages


def test_payloads_of_other_predictions_are_found(world: World) -> None:
    one, two = (world.shard([request(seed=7, output=text)])[0].partition(".")[0] for text in ("AAAA", "CCCC"))
    first, second = (ShardFolder(world.log_dir / name) for name in (one, two))
    data = bytearray(second.segment(0).read_bytes())
    first.segment(0).write_bytes(data)
    assert "belongs to shard" in audit(world.log, world.sources).findings[0].message
    data[:SEGMENT_HEAD_BYTES] = segment_head(one, 1)
    first.segment(0).write_bytes(data)
    messages = [finding.message for finding in audit(world.log, world.sources).findings]
    assert messages == [
        "the input of entry 1 does not meet its commitment", "the output of entry 1 does not meet its commitment",
    ]  # fmt: skip


def test_a_missing_payload_is_found_and_an_erased_one_is_noted(world: World, shard: ShardFolder) -> None:
    erase(shard, 2)
    erase(shard, 3, link=True)
    report = audit(world.log, world.sources)
    assert report.findings == []
    assert f"{shard.id}: 4 payloads were erased; their commitments remain" in report.notes
    shard.segment(0).unlink()
    assert {finding.rule for finding in audit(world.log, world.sources).findings} == {"payload"}


def test_a_release_that_the_trust_root_does_not_know(world: World, shard: ShardFolder) -> None:
    for trust in (Signer().trust(), None):
        (finding,) = audit(world.log, ReleaseSources(trust=trust)).findings
        assert finding.rule == "release"
    shard.release.unlink()
    (finding,) = audit(world.log, world.sources).findings
    assert "release.sigstore.json is missing; " in finding.message
    assert "no signed bundle" in finding.message


def test_records_without_a_signature_are_not_enough(world: World, shard: ShardFolder) -> None:
    shard.release.unlink()
    store = RecordStore(world.root / "store")
    for record in (*world.chain.records.values(), world.chain.release):
        store.put_record(record)
    (finding,) = audit(world.log, replace(world.sources, store=store)).findings
    assert "is not verified" in finding.message


def test_a_release_of_another_shard_does_not_stand_in(world: World, shard: ShardFolder) -> None:
    other = make_chain(image="sha256:" + "1" * 64)
    shard.release.write_bytes(world.signer.bundle(other.statement()))
    (finding,) = audit(world.log, world.sources).findings
    assert finding.rule == "release"


def test_entries_after_the_close_and_second_headers_are_named(world: World) -> None:
    writer = world.open()
    writer._append_group([entries.Close(1).to_bytes()])
    writer._append_group([world.log.shard(writer.shard_id).entry(0)])
    writer.close()
    found = _rules(audit(world.log, world.sources))
    assert found == [("entry-malformed", 2), ("entry-malformed", 2), ("entry-malformed", 3)]


def test_unknown_entries_are_kept_and_no_finding(world: World) -> None:
    writer = world.open()
    writer._append_group([entries.dump([1, 200, "from the future"])])
    writer.append(request())
    writer.close()
    assert audit(world.log, world.sources).findings == []


def test_a_living_shard_can_be_audited(world: World) -> None:
    with world.open() as writer:
        writer.append(request(count=3))
        report = audit(world.log, world.sources)
        assert report.findings == []
        assert report.predictions == 3


def test_an_empty_log_holds(world: World) -> None:
    assert audit(world.log, world.sources).passed


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=2, max_size=8, unique=True), st.data())
def test_differences_are_named_as_what_they_are(signed: list[bytes], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(signed) - 1))
    assert compare(signed, signed) == []
    assert [(item.rule, item.sequence) for item in compare(signed, signed[:at] + signed[at + 1 :])] == [
        ("entry-dropped", at)
    ]
    edited = [*signed[:at], b"edited", *signed[at + 1 :]]
    assert [(item.rule, item.sequence) for item in compare(signed, edited)] == [("entry-edited", at)]
    shuffled = data.draw(st.permutations(signed))
    if shuffled != signed:
        first = next(at for at in range(len(signed)) if signed[at] != shuffled[at])
        assert [(item.rule, item.sequence) for item in compare(signed, shuffled)] == [("entry-reordered", first)]
    assert [item.rule for item in compare(signed, [*signed, b"more"])] == ["entries-differ"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A closed shard, and one that was recovered by it."""
    world = World(tmp_path_factory.mktemp("honest"), make_chain(), Signer())
    writer = world.open()
    writer.append(request(count=2))
    _die(world, writer)
    with (writer._folder.journal).open("ab") as file:
        file.write(b"torn")
    world.shard([request(seed=1, count=2), request(seed=2)])
    assert audit(world.log, world.sources).findings == []
    return world


def _places(world: World) -> list[tuple[Path, int]]:
    """Every byte that audit covers (FORMAT.md 13 names the ones that it does not)."""
    files = [path for path in sorted(world.log_dir.rglob("*")) if path.is_file()]
    by_design = ("journal.torn", "release.sigstore.json")
    return [(path, at) for path in files if path.name not in by_design for at in range(path.stat().st_size)]


def _is_found(world: World, path: Path, at: int, change: int) -> bool:
    data = bytearray(path.read_bytes())
    data[at] ^= change
    path.write_bytes(data)
    try:
        return not audit(world.log, world.sources).passed
    finally:
        data[at] ^= change
        path.write_bytes(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_any_changed_byte_is_found(honest: World, data: st.DataObject) -> None:
    path, at = data.draw(st.sampled_from(_places(honest)))
    assert _is_found(honest, path, at, data.draw(st.integers(1, 255)))


@pytest.mark.long
def test_every_changed_byte_is_found(honest: World) -> None:
    change = random.Random(0)
    missed = [
        (path.name, at) for path, at in _places(honest) if not _is_found(honest, path, at, change.randint(1, 255))
    ]
    assert missed == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_any_cut_file_is_found(honest: World, data: st.DataObject) -> None:
    paths = sorted({path for path, _ in _places(honest)})
    path = data.draw(st.sampled_from(paths))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        assert not audit(honest.log, honest.sources).passed
    finally:
        path.write_bytes(whole)
