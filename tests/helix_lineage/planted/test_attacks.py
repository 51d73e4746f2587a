"""Attacks that worked once, each by name, and what is said of them now."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import zlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from helix_lineage.audit.findings import Finding
from helix_lineage.cli.main import app
from helix_lineage.errors import LineageError, ShardError
from helix_lineage.evidence.trace import trace
from helix_lineage.records.store import RecordStore
from helix_lineage.replay.plan import plan
from helix_lineage.shard import ShardWriter, entries, payload
from helix_lineage.shard.header import shard_id
from helix_lineage.shard.payload_reader import erase
from helix_lineage.shard.recovery import recover_others
from helix_lineage.tlog import journal, merkle
from helix_lineage.tlog.checkpoint import SHARD_ORIGIN, Checkpoint, sign
from helix_lineage.tlog.disk import replace_file
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.planted.world import OWN, World, make_world
from tests.helix_lineage.support import NOW_NS, die, header, request


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    """Who waits for a pipe's writer waits for ever: a signal ends that."""

    def ring(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("planted") / "world")


@pytest.fixture
def world(pristine: World, tmp_path: Path) -> World:
    """A copy, to do with as one likes."""
    shutil.copytree(pristine.root, tmp_path / "world", symlinks=True)
    found = World(**{**vars(pristine), "root": tmp_path / "world"})
    (found.root / "trust.json").write_bytes(found.office.trust_json())
    return found


@pytest.fixture
def shard(world: World) -> ShardFolder:
    """The first one, which was closed."""
    return ShardFolder(world.log.root / world.ids[0].partition(".")[0])


def _command(world: World, *words: str) -> tuple[int, Any]:
    """Exit status and JSON of a command."""
    places = ["--log", str(world.log.root), "--trust", str(world.root / "trust.json"), "--json"]
    done = CliRunner().invoke(app, [*words, *places])
    if isinstance(done.exception, LineageError):
        return 2, str(done.exception)
    return done.exit_code, json.loads(done.stdout)


def _audit(world: World) -> tuple[int, dict[tuple[str, str], str]]:
    """Exit status of the audit, and by shard and rule what was found."""
    status, report = _command(world, "audit", "--directory", str(world.directory))
    messages = dict[tuple[str, str], str]()
    for found in report["findings"]:
        of = found["shard"], found["rule"]
        messages[of] = f"{messages[of]}; {found['message']}" if of in messages else found["message"]
    return status, messages


def test_nothing_is_found_before_anything_is_planted(world: World) -> None:
    assert _audit(world) == (0, {})


FILES = {
    "journal": "journal-damaged", "checkpoint": "checkpoint", "lock": "file", "release.sigstore.json": "release",
    "promotion.sigstore.json": "promotion", "payload/000000.seg": "payload", "tile/0/000.p/5": "tile",
    "tile/entries/000.p/5": "tile", "recovered": "recovery",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_a_files_place_is_found_by_rule_and_path_and_no_other_shard_is_blamed(
    world: World, shard: ShardFolder, name: str
) -> None:
    (shard.root / name).unlink(missing_ok=True)
    os.mkfifo(shard.root / name)
    status, found = _audit(world)
    assert status == 1
    assert {of for of, _ in found} == {shard.id}
    message = found[shard.id, FILES[name]]
    assert "it is a pipe, not a regular file" in message
    assert Path(name).name.partition(".")[0] in message
    # Who asks for a prediction of it is told, or what is asked for doesn't need that file.
    for ask in (trace, plan):
        try:
            ask(world.log, world.ids[0], world.sources)
        except LineageError as error:
            assert "a pipe" in str(error) or "the release" in str(error)
    trace(world.log, world.ids[2], world.sources)
    assert [item.shard for item in recover_others(world.log.root, OWN, lambda: NOW_NS, lambda _: f"{OWN}.1")] in (
        [],
        [shard.id],
    )


@pytest.mark.parametrize("name", ["journal", "checkpoint", "tile/entries/000.p/8", "lock"])
def test_a_pipe_in_the_directory_is_found(world: World, name: str) -> None:
    (world.directory / name).unlink()
    os.mkfifo(world.directory / name)
    status, found = _audit(world)
    assert status == 1
    assert "it is a pipe, not a regular file" in found["", "directory"]


def test_a_revocation_does_not_vanish_behind_a_pipe(world: World) -> None:
    """Whoever can't read a statement doesn't know what it revokes: a trace ends, an audit lists it."""
    for path in (world.directory / "statement").iterdir():
        if b"revo" in b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]):
            path.unlink()
            os.mkfifo(path)
    status, said = _command(world, "trace", world.ids[0], "--directory", str(world.directory))
    assert status == 2
    assert "it is a pipe, not a regular file" in said
    status, found = _audit(world)
    assert (status, list(found)) == (1, [("", "directory")])


def test_a_payload_offset_beyond_what_a_file_can_have(world: World, shard: ShardFolder) -> None:
    """2^63 + 5 under a right checksum."""
    data = bytearray(shard.segment(0).read_bytes())
    spans = list(payload.spans(bytes(data), payload.SEGMENT_HEAD_BYTES, len(data)))
    start, end = next((start, end) for kind, _, start, end in spans if kind == payload.OUTPUT)
    data[start + 20 : start + 28] = struct.pack("<Q", 2**63 + 5)
    data[end - 4 : end] = struct.pack("<I", zlib.crc32(data[start : end - 4]))
    shard.segment(0).write_bytes(data)
    status, found = _audit(world)
    assert (status, list(found)) == (1, [(shard.id, "payload")])
    with pytest.raises(ShardError, match=r"offset 9223372036854775813: the segment has \d+ bytes"):
        plan(world.log, world.ids[0], world.sources)
    assert _command(world, "trace", world.ids[0])[0] == 1
    with pytest.raises(ShardError, match="offset 9223372036854775813"):
        erase(shard, 1, link=True)


@pytest.mark.parametrize("data", [b"[" * 200_000, b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 200_000])
def test_a_release_file_of_nested_lists(world: World, shard: ShardFolder, data: bytes) -> None:
    for path in (shard.release, world.root / "releases/m/release.sigstore.json"):
        path.write_bytes(data)
    status, found = _audit(world)
    assert (status, {rule for _, rule in found}) == (1, {"release"})
    status, said = _command(world, "trace", world.ids[0])
    assert status == 1
    assert "no signed bundle" in said["release"]["problem"]


def _forge(world: World, rows: list[bytes], size: int | None = None) -> str:
    """A shard of an untrusted client's own: its key is his, so all that he says of it is signed."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x07")
    rows = [header(world.chain, public_key=key.public_key().public_bytes_raw()).to_bytes(), *rows]
    name = shard_id(rows[0])
    root = merkle.root([merkle.leaf_hash(row) for row in rows])
    note = sign(Checkpoint(SHARD_ORIGIN + name, size or len(rows), root), key)
    folder = ShardFolder(world.log.root / name)
    folder.root.mkdir()
    frames = b"".join(journal.frame(journal.ENTRY, row) for row in rows)
    folder.journal.write_bytes(journal.MAGIC + frames + journal.frame(journal.CHECKPOINT, note))
    folder.checkpoint.write_bytes(note)
    return name


def test_a_checkpoint_of_more_entries_than_anybody_could_hold(world: World) -> None:
    """Its own key signed it: 10^18 tiles are not looked for."""
    name = _forge(world, [entries.dump([1, 9])], size=10**18)
    status, found = _audit(world)
    assert status == 1
    assert {of for of, _ in found} == {name}
    assert next(iter(recover_others(world.log.root, OWN, lambda: NOW_NS, lambda _: f"{OWN}.1"))).problem


def test_an_entry_that_no_tile_can_hold(world: World) -> None:
    name = _forge(world, [entries.dump([1, 99, bytes(70_000)])])
    status, found = _audit(world)
    assert status == 1
    assert "the entry has 70009 bytes, more than 65535" in found[name, "truncated"]
    assert next(iter(recover_others(world.log.root, OWN, lambda: NOW_NS, lambda _: f"{OWN}.1"))).problem


def test_a_terabyte_of_holes(world: World, shard: ShardFolder) -> None:
    for path in (shard.journal, shard.segment(0), shard.bundle(0, 5), shard.release, shard.checkpoint):
        os.truncate(path, 2**40)
    status, found = _audit(world)
    assert status == 1
    assert "1099511627776 bytes" in found[shard.id, "journal-damaged"]
    assert _command(world, "trace", world.ids[0])[0] == 2
    assert _command(world, "trace", world.ids[2])[0] == 0


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\x1b[2J", "\u00b2".encode(), b"a\nb"])
@pytest.mark.parametrize("place", ["", "tile", "tile/0", "payload"])
def test_files_of_any_name(world: World, shard: ShardFolder, name: bytes, place: str) -> None:
    (shard.root / place / os.fsdecode(name)).write_bytes(b"x")
    status, found = _audit(world)
    assert (status, list(found)) == (1, [(shard.id, "file")])
    assert found[shard.id, "file"].isprintable()


def test_a_segment_whose_number_only_unicode_knows(world: World, shard: ShardFolder) -> None:
    (shard.payload / "\u00b2.seg").write_bytes(b"x")
    (shard.payload / "00000\u0663.seg").write_bytes(b"x")
    status, found = _audit(world)
    assert (status, list(found)) == (1, [(shard.id, "file")])
    assert _command(world, "trace", world.ids[0])[0] == 0


def test_a_link_in_the_place_of_a_shard_is_found_and_not_followed(world: World) -> None:
    place = world.log.root / ("f" * 32)
    place.symlink_to(world.log.root / world.ids[0].partition(".")[0])
    status, found = _audit(world)
    assert (status, list(found)) == (1, [("f" * 32, "file")])
    place.unlink()
    os.mkfifo(place)
    assert list(_audit(world)[1]) == [("f" * 32, "file")]


def test_what_an_audit_did_not_foresee_in_one_shard_hides_no_other(
    world: World, shard: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helix_lineage import audit as module  # noqa: PLC0415  (its name is also its function's)

    real = module.audit_shard

    def fail(path: Path, *more: Any) -> Any:
        if path.name == shard.id:
            raise RuntimeError("never thought of")
        return real(path, *more)

    monkeypatch.setattr(module, "audit_shard", fail)
    (shard.root.parent / world.ids[2].partition(".")[0] / "stranger").write_bytes(b"x")
    _, found = _audit(world)
    assert "never thought of" in found[shard.id, "unreadable"]
    assert found[world.ids[2].partition(".")[0], "file"]


def test_recovery_cuts_nothing_behind_a_link(world: World, tmp_path: Path) -> None:
    """A dead shard's folder of payloads leads to somebody else's."""
    writer = ShardWriter.create(world.log.root, header(world.chain), now=lambda: NOW_NS)
    writer.append(request())
    dead = die(writer)
    shutil.rmtree(dead.payload)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "000000.seg").write_bytes(b"precious")
    dead.payload.symlink_to(victim)
    found = {item.shard: item for item in recover_others(world.log.root, OWN, lambda: NOW_NS, lambda _: f"{OWN}.1")}
    assert "it is a link, not a folder" in (found[dead.id].problem or "")
    with pytest.raises(ShardError, match="it is a link, not a folder"):
        erase(dead, 1)
    assert (victim / "000000.seg").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_lies_in_the_place_of_a_temporary_file_is_not_written_to(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    planted = tmp_path / "checkpoint.tmp"
    if kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to(victim)
    replace_file(tmp_path / "checkpoint", b"new", durable=True)
    assert (tmp_path / "checkpoint").read_bytes() == b"new"
    assert victim.read_bytes() == b"precious"
    assert not os.path.lexists(planted)


def test_a_store_says_what_lies_in_a_blobs_place(world: World) -> None:
    store, digest = RecordStore(world.root / "store"), world.chain.release.digest
    path = store.path(digest)
    path.unlink()
    os.mkfifo(path)
    assert not store.has(digest)
    assert store.fsck() == [f"blob {digest}: it is a pipe, not a regular file"]
    with pytest.raises(LineageError, match="does not hold this"):
        store.get_record(digest)


def test_findings_that_can_be_printed() -> None:
    assert Finding("file", "", os.fsdecode(b"a\xff\n")).message == "a\\udcff\\n"
