"""A log against its directory: what the log alone can't show. The directory's copy lies outside what is edited."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helix_lineage.audit import audit
from helix_lineage.directory import evidence, view
from helix_lineage.directory.rules import statement_of
from helix_lineage.directory.service import Directory
from helix_lineage.directory.source import FolderSource
from helix_lineage.errors import DirectoryAway, TrustError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import trace
from helix_lineage.page import gather, page
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog import journal
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.directory.support import Office, now
from tests.helix_lineage.support import NOW, NOW_NS, header, request
from tests.waiting import until


class Town:
    """A log folder, and a directory beside it that was told of its shards."""

    def __init__(self, root: Path) -> None:
        self.office = Office(root / "far", clock=itertools.count(NOW_NS, 10**9))
        self.office.root.mkdir()
        self.log = root / "log"
        self.directory: Directory = self.office.open()
        self.submit(self.office.released())

    def submit(self, bundle: bytes) -> int:
        return self.directory.take(statement_of(bundle), bundle=bundle).index

    def open(self, *, register: bool = True) -> ShardWriter:
        bundle = self.office.released()
        writer = ShardWriter.create(self.log, header(self.office.chain), now=lambda: NOW_NS, release=bundle)
        if register:
            self.directory.take(evidence.registration(Shard(writer.folder)))
        return writer

    def tell(self, folder: Path) -> None:
        shard = Shard(folder)
        known = self.directory.state(shard.id).size
        body = evidence.ending(shard, known) if shard.ended else evidence.advance(shard, known)
        if body is not None:
            self.directory.take(body)

    def shard(self, count: int = 4, *, at_ns: int = NOW_NS, tell: bool = True) -> Path:
        """A closed shard that the directory saw from beginning to end."""
        writer = self.open()
        writer.append([replace(item, finished_ns=at_ns) for item in request(count=count)])
        writer.close()
        if tell:
            self.tell(writer.folder)
        return writer.folder

    def view(self) -> view.View:
        return view.load(FolderSource(self.office.folder), self.office.trust(), now(), audited=True)

    def found(self, **options: bool) -> list[tuple[str, str]]:
        report = audit(Log(self.log), ReleaseSources(trust=self.office.trust()), directory=self.view, **options)
        self.notes = report.notes
        return [(item.rule, item.message) for item in report.findings]


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def rules(found: list[tuple[str, str]]) -> set[str]:
    return {rule for rule, _ in found}


def test_an_honest_log_holds_and_its_trace_names_the_registration(town: Town) -> None:
    folder = town.shard()
    assert town.found() == []
    assert not any("directory" in note for note in town.notes)
    traced = trace(Log(town.log), f"{folder.name}.2", ReleaseSources(trust=town.office.trust()), town.view())
    assert traced.directory is not None
    said = traced.directory.to_json()
    assert (said["index"], said["closed"], said["revoked"], said["origin"]) == (1, True, [], town.office.origin)
    assert traced.directory.registered_ns == traced.directory.after_ns
    assert traced.directory.before_ns == (traced.directory.after_ns or 0) + 10**9
    assert traced.to_json()["directory"] == said


def test_a_dropped_shard_is_named(town: Town) -> None:
    folder, kept = town.shard(), town.shard()
    shutil.rmtree(folder)
    assert town.found() == [
        ("shard-missing", "the shard is gone: it was registered (entry 1), and had 6 entries (entry 2)")
    ]
    assert town.found(whole=False) == []
    assert any(folder.name in note and "not here" in note for note in town.notes)
    assert kept.exists()


def test_a_shard_that_its_key_withdrew_is_not_missed_and_one_that_served_is(town: Town) -> None:
    for count in (0, 1):
        writer = town.open()
        if count:
            writer.append(request(count=count))
        writer.close()
        town.tell(writer.folder)
        shutil.rmtree(writer.folder)
    ((rule, message),) = town.found()
    assert (rule, "had 3 entries" in message) == ("shard-missing", True)
    assert sum("withdrawn: its own key closed it before it served" in note for note in town.notes) == 1


def test_a_shard_that_is_registered_after_the_directory_was_read_is_no_stranger(town: Town) -> None:
    views = []

    def look() -> view.View:
        views.append(town.view())
        if len(views) == 1:
            town.shard()
        return views[-1]

    assert audit(Log(town.log), ReleaseSources(trust=town.office.trust()), directory=look).findings == []
    assert len(views) == 2


def test_a_directory_that_goes_away_between_two_looks_hides_nothing(town: Town) -> None:
    folder = town.shard()
    (folder / "stranger").write_text("x")
    views: list[view.View] = []

    def look() -> view.View:
        if views:
            raise DirectoryAway("it does not answer")
        views.append(town.view())
        town.shard()
        return views[0]

    found = audit(Log(town.log), ReleaseSources(trust=town.office.trust()), directory=look).findings
    assert "file" in {finding.rule for finding in found}
    with pytest.raises(DirectoryAway):
        audit(Log(town.log), ReleaseSources(trust=town.office.trust()), directory=look)


def test_a_directory_that_nobody_can_believe_is_a_finding(town: Town) -> None:
    town.shard()

    def look() -> view.View:
        raise TrustError("its key is another")

    (finding,) = audit(Log(town.log), ReleaseSources(trust=town.office.trust()), directory=look).findings
    assert (finding.rule, finding.message) == ("directory", "its key is another")


def test_a_truncated_shard_is_named(town: Town) -> None:
    """Cut in the journal alone, so its own published checkpoint tells too."""
    folder = town.shard()
    place = ShardFolder(folder)
    data = place.journal.read_bytes()
    place.journal.write_bytes(data[: journal.parse(data).checkpoints[0].end])
    assert "truncated" in rules(town.found())


def test_a_rolled_back_shard_is_named_though_it_is_whole_in_itself(town: Town, tmp_path: Path) -> None:
    """An older copy of the whole folder is put back: the log alone shows nothing."""
    writer = town.open()
    writer.append(request(count=2))
    writer.close()
    copy = tmp_path / "older"
    shutil.copytree(writer.folder, copy)
    town.tell(writer.folder)
    older = town.open()
    older.append(request(count=2))
    town_folder = older.folder
    snapshot = tmp_path / "snapshot"
    _wait_published(town_folder, 3)
    shutil.copytree(town_folder, snapshot)
    older.append(request(count=3))
    older.close()
    town.tell(town_folder)
    shutil.rmtree(town_folder)
    shutil.copytree(snapshot, town_folder)
    assert rules(audit_alone(town)) == set()
    found = town.found()
    assert rules(found) == {"rolled-back"}
    assert "it has 3 entries, but the directory took 7" in found[0][1]


def audit_alone(town: Town) -> list[tuple[str, str]]:
    report = audit(Log(town.log), ReleaseSources(trust=town.office.trust()))
    return [(item.rule, item.message) for item in report.findings]


def _wait_published(folder: Path, size: int) -> None:
    until(lambda: Shard(folder).published[1].size >= size, f"{size} published entries")


def test_a_forked_shard_is_named(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key signs two histories of one length: one for the directory, one for the disk."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    monkeypatch.setattr("helix_lineage.shard.writer.Ed25519PrivateKey.generate", lambda: key)
    folder = town.shard()
    shutil.rmtree(folder)
    with town.open(register=False) as writer:
        writer.append(request(count=4, output="XX"))
    assert writer.folder == folder
    assert audit_alone(town) == []
    assert rules(town.found()) == {"forked"}


def test_a_shard_that_never_was_registered_is_named_if_it_served(town: Town) -> None:
    with town.open(register=False):
        pass
    assert town.found() == []
    assert any("never served" in note for note in town.notes)
    with town.open(register=False) as writer:
        writer.append(request())
    assert rules(town.found()) == {"unregistered"}
    traced = trace(Log(town.log), f"{writer.shard_id}.1", ReleaseSources(trust=town.office.trust()), town.view())
    assert traced.directory is not None
    assert traced.directory.index is None


def test_a_shard_that_was_never_closed_and_its_gap_are_noted(town: Town) -> None:
    town.shard(tell=False)
    assert town.found() == []
    assert any("never saw it closed (closed here); 5 entries after the last" in note for note in town.notes)


LATE: list[tuple[int, bool]] = [(0, True), (55, True), (-55, True), (80, False), (-80, False)]


@pytest.mark.parametrize(("seconds", "holds"), LATE)
def test_a_hosts_times_are_bracketed(town: Town, seconds: int, holds: bool) -> None:
    town.shard(at_ns=NOW_NS + seconds * 10**9)
    found = town.found()
    assert (found == []) is holds
    if not holds:
        assert rules(found) == {"time"}
        assert "entries 1, 2, 3, 4" in found[0][1]


@pytest.mark.parametrize("kind", ["release", "image", "key"])
def test_what_was_revoked_is_marked_in_audit_and_trace(town: Town, kind: str) -> None:
    folder = town.shard()
    office = town.office
    target = {
        "release": office.chain.release.digest, "image": str(office.chain.release.parameters["image"]),
        "key": office.releaser.entry()["key_id"],
    }[kind]  # fmt: skip
    index = town.submit(office.revoked(kind, target, NOW + timedelta(hours=1), index=2))
    assert town.found() == []
    words = f"revoked: the {kind} {target}, as of 2026-06-01T01:00:00+00:00 (directory entry {index}): leaked"
    assert any(words in note for note in town.notes)
    traced = trace(Log(town.log), f"{folder.name}.1", ReleaseSources(trust=office.trust()), town.view())
    assert traced.directory is not None
    assert [mark.to_json()["target"] for mark in traced.directory.marks] == [target]


def test_a_directory_that_took_what_it_should_not_is_named(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own key signs, so its log is whole; the rules are run again by the auditor."""
    town.shard()
    shard = town.office.shard(release="sha256:" + "0" * 64)
    monkeypatch.setattr("helix_lineage.directory.rules.DirectoryState.decide", lambda *_: None)
    town.directory.take(shard.registration())
    monkeypatch.undo()
    found = town.found()
    assert rules(found) == {"directory"}
    assert found[0][1] == "entry 3 should not be there: the header's release is unknown here"


SPOILT: dict[str, Callable[[Path], None]] = {
    "entries": lambda folder: _flip(folder / "tile/entries/000.p/3", 40),
    "checkpoint": lambda folder: _flip(folder / "checkpoint", 40),
}


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_directory_that_was_edited_is_not_believed(town: Town, spoil: str) -> None:
    town.shard()
    SPOILT[spoil](town.office.folder)
    with pytest.raises(TrustError):
        town.view()


def test_every_byte_of_the_directorys_entries_counts(town: Town) -> None:
    town.shard()
    path = town.office.folder / "tile/entries/000.p/3"
    honest = path.read_bytes()
    for at in range(len(honest)):
        _flip(path, at)
        with pytest.raises(TrustError):
            town.view()
        path.write_bytes(honest)


def test_an_auditor_that_does_not_look_at_the_directory_misses_it(town: Town) -> None:
    """The planted fault: without the directory a dropped shard is not missed."""
    shutil.rmtree(town.shard())
    assert audit_alone(town) == []


def test_the_page_of_a_trace_shows_what_the_directory_says(town: Town) -> None:
    folder, sources = town.shard(), ReleaseSources(trust=town.office.trust())

    def drawn(name: str) -> str:
        return page(gather(Log(town.log), name, sources, town.view())).decode()

    assert "2026-06-01" in drawn(f"{folder.name}.2")
    assert ">revoked<" not in drawn(f"{folder.name}.2")
    with town.open(register=False) as writer:
        writer.append(request())
    assert "It never heard of this shard" in drawn(f"{writer.shard_id}.1")
    town.submit(town.office.revoked("release", town.office.chain.release.digest))
    assert ">revoked<" in drawn(f"{folder.name}.2")
