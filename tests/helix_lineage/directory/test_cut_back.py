"""A directory whose journal is cut back together with its `checkpoint` file: what else lies there tells.

The cut is an attacker's: a revocation that was acknowledged, and shards that were registered, would be forgotten.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from helix_lineage.audit import audit
from helix_lineage.directory import storage, view
from helix_lineage.directory.source import FolderSource
from helix_lineage.errors import DirectoryAway, DirectoryError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import journal
from tests.helix_lineage.directory.support import Office, now, submit
from tests.helix_lineage.support import World, request


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """Five entries: a release, two shards, a revocation, a third shard that was registered before it counted."""
    office = Office(tmp_path)
    with closing(office.open()) as directory:
        submit(directory, office.released())
        directory.take(office.shard(60).registration())
        directory.take(office.shard(61).registration())
        submit(directory, office.revoked("image", "sha256:" + "0" * 64))
    return office


def cut(office: Office, entries: int) -> None:
    """Cut journal and published checkpoint back to so many entries."""
    path = office.folder / "journal"
    data = path.read_bytes()
    (note,) = [found for found in journal.parse(data).checkpoints if found.size == entries]
    path.write_bytes(data[: note.end])
    (office.folder / "checkpoint").write_bytes(note.note)


def found(office: Office) -> list[str]:
    """What an audit of the folder says of the directory."""
    report = audit(
        Log(office.root / "no log"),
        ReleaseSources(trust=office.trust()),
        directory=lambda: view.load(FolderSource(office.folder), office.trust(), now(), audited=True),
        directory_folder=office.folder,
    )
    return [item.message for item in report.findings if item.rule == "directory"]


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("entries", [0, 1, 2, 3])
def test_tiles_of_more_entries_are_evidence(office: Office, entries: int) -> None:
    assert found(office) == []
    cut(office, entries)
    before = _files(office.folder)
    with pytest.raises(DirectoryError, match=f"the journal ends at {entries} entries, but tiles of 4 lie here") as told:
        office.open()
    assert told.value.fix == "restore the newest copy of the folder"
    assert _files(office.folder) == before  # nothing of the evidence is removed
    assert f"the journal ends at {entries} entries, but tiles of 4 lie here: {storage.CUT}" in found(office)


def test_hash_tiles_of_any_level_are_evidence(tmp_path: Path) -> None:
    office = Office(tmp_path)
    with closing(office.open()) as directory:
        submit(directory, office.released())
        for at in range(257):
            directory.take(office.shard(60 + at).registration())
    cut(office, 200)
    shutil.rmtree(office.folder / "tile/entries")
    shutil.rmtree(office.folder / "tile/0")
    with pytest.raises(DirectoryError, match="the journal ends at 200 entries, but tiles of 256 lie here"):
        office.open()


@pytest.mark.parametrize("entries", [0, 1, 3])
def test_bundles_that_no_entry_names_are_evidence(office: Office, entries: int) -> None:
    """Whoever removes the tiles, too, and forgets the bundles."""
    cut(office, entries)
    shutil.rmtree(office.folder / "tile")
    orphans = 2 if entries == 0 else 1
    with pytest.raises(DirectoryError, match=f"no entry of the journal names {orphans} of the bundles that lie here"):
        office.open()
    said = [message for message in found(office) if message.startswith("no entry of the journal names statement/")]
    assert len(said) == orphans


def _die_before(step: str, office: Office, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A directory that dies while it takes a revocation, before that step; gives the bundle."""

    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    bundle = office.revoked("image", "sha256:" + "1" * 64)
    directory = office.open()
    with monkeypatch.context() as patch:
        patch.setattr(storage.DirectoryLog, step, die)
        with pytest.raises(Died):
            submit(directory, bundle)
    directory._log.release()
    return bundle


@pytest.mark.parametrize(("step", "acknowledgeable"), [("_write", False), ("_settle", True)])
def test_a_crash_between_bundle_and_entry_is_no_evidence(
    office: Office, monkeypatch: pytest.MonkeyPatch, step: str, acknowledgeable: bool
) -> None:
    bundle = _die_before(step, office, monkeypatch)
    assert found(office) == []
    with closing(office.open()) as directory:
        assert directory.book.size == (5 if acknowledgeable else 4)
        assert list((office.folder / "statement").glob("*.new")) == []
        assert submit(directory, bundle).index == 4
    assert found(office) == []
    assert len(list((office.folder / "statement").iterdir())) == 3


def test_a_bundle_that_cannot_be_named_stops_the_log_and_a_restart_names_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, bundle = office.open(), office.revoked("image", "sha256:" + "1" * 64)

    def full(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "rename_file", full)
        with pytest.raises(DirectoryAway, match="Input/output error"):
            submit(directory, bundle)
    with pytest.raises(DirectoryAway, match="takes no more entries: cannot name a statement's bundle"):
        submit(directory, bundle)
    directory.close()
    with closing(office.open()) as again:
        assert submit(again, bundle).index == 4


STRANGERS: dict[str, Callable[[Path], object]] = {
    "a name that is no tile's": lambda folder: (folder / "tile/0/readme").write_bytes(b""),
    "a level that no log has": lambda folder: _file(folder / "tile/99999999/000"),
    "a name that is no digest's": lambda folder: (folder / "statement/readme").write_bytes(b""),
    "a half written bundle": lambda folder: (folder / f"statement/{'0' * 64}.new.tmp").write_bytes(b""),
}


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_only_lies_there_is_no_evidence(office: Office, kind: str) -> None:
    STRANGERS[kind](office.folder)
    office.open().close()


def test_a_shard_that_is_cut_with_its_checkpoint_and_its_close_is_named(world: World) -> None:
    """Without the close entry it looks as if its process had died: a recovery would make it whole, and shorter."""
    (name, *_) = world.shard([request(count=2), request(count=3)])
    folder = world.log.find(name)[0].folder
    data = folder.journal.read_bytes()
    (note,) = [at for at in journal.parse(data).checkpoints if at.size == 3]
    folder.journal.write_bytes(data[: note.end])
    folder.checkpoint.write_bytes(note.note)

    def said() -> list[tuple[str, str]]:
        return [(item.rule, item.message) for item in audit(world.log, world.sources).findings]

    (finding, *_) = told = said()
    assert finding[0] == "truncated"
    assert finding[1].startswith("the journal's checkpoints cover 3 entries, but tiles of 7 lie here: it was cut back")
    before = _files(folder.root)
    with world.open() as writer:
        (recovery,) = writer.recovered
    assert recovery.entry is None
    assert recovery.problem == "the journal is intact up to entry 3, but tiles of 7 entries lie here"
    assert {path: data for path, data in _files(folder.root).items() if path != "lock"} == {
        path: data for path, data in before.items() if path != "lock"
    }
    assert said() == told
