"""A revocation does not vanish with its file: a bundle that is absent or another one is an error for every reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from helix_lineage.audit import audit
from helix_lineage.cli.main import app
from helix_lineage.directory import bundles, evidence, view
from helix_lineage.directory.entries import StatementEntry, digest_of
from helix_lineage.directory.rules import DirectoryState
from helix_lineage.directory.source import FolderSource, UrlSource
from helix_lineage.errors import LineageError, StatementMissing, TrustError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log, Shard
from tests.helix_lineage.directory.support import Office, now, running, submit
from tests.helix_lineage.support import NOW, NOW_NS, header, request


class Revoked:
    """A release that served and was revoked; the log beside the directory."""

    def __init__(self, root: Path) -> None:
        self.office, self.log = Office(root), root / "log"
        self.release = str(self.office.chain.release.digest)
        released, revoked = self.office.released(), self.office.revoked("release", self.release, NOW)
        directory = self.office.open()
        submit(directory, released)
        with ShardWriter.create(self.log, header(self.office.chain), now=lambda: NOW_NS, release=released) as writer:
            directory.take(evidence.registration(Shard(writer.folder)))
            (self.prediction,) = writer.append(request(count=1))
        directory.take(evidence.ending(Shard(writer.folder), 1))
        submit(directory, revoked)
        directory.close()
        self.trust = root / "trust.json"
        self.trust.write_bytes(self.office.trust_json())
        self.file = self.office.folder / "statement" / digest_of(revoked).hex()

    def load(self, *, audited: bool = False) -> view.View:
        return view.load(FolderSource(self.office.folder), self.office.trust(), now(), audited=audited)

    def trace(self, *options: str) -> tuple[int, str]:
        words = ["trace", self.prediction, "--log", str(self.log), "--trust", str(self.trust), *options]
        done = CliRunner().invoke(app, words)
        if isinstance(done.exception, LineageError):
            return 2, str(done.exception)
        return done.exit_code, done.stdout


@pytest.fixture
def revoked(tmp_path: Path) -> Revoked:
    return Revoked(tmp_path)


def _void(place: Revoked) -> None:
    """Another revocation, which the trust root does not bear: by another office's revoker."""
    place.file.write_bytes(Office(Path("x")).revoked("release", place.release, NOW))


def _dangling(place: Revoked) -> None:
    place.file.unlink()
    place.file.symlink_to("nowhere")


def _folder(place: Revoked) -> None:
    place.file.unlink()
    place.file.mkdir()


SPOILT: dict[str, tuple[Callable[[Revoked], None], str]] = {
    "removed": (lambda place: place.file.unlink(), "the bundle of a revocation is missing"),
    "emptied": (lambda place: place.file.write_bytes(b""), "not the one that the entry names"),
    "a void one": (_void, "not the one that the entry names"),
    "another one of this log": (
        lambda place: place.file.write_bytes(
            next(path for path in sorted(place.file.parent.iterdir()) if path != place.file).read_bytes()
        ),
        "not the one that the entry names",
    ),
    "one byte": (lambda place: place.file.write_bytes(place.file.read_bytes() + b"\n"), "not the one that the entry"),
    "a dangling link": (_dangling, "cannot be read"),
}


@pytest.fixture(params=SPOILT)
def spoilt(revoked: Revoked, request: pytest.FixtureRequest) -> Iterator[tuple[Revoked, str]]:
    assert revoked.trace("--directory", str(revoked.office.folder))[0] == 1  # it is marked while all is there
    spoil, words = SPOILT[request.param]
    spoil(revoked)
    yield revoked, words


def test_the_directory_does_not_start(spoilt: tuple[Revoked, str]) -> None:
    """Else it would register new shards of what was revoked."""
    place, words = spoilt
    for _ in range(2):  # and it lets go of the folder
        with pytest.raises(StatementMissing, match=words) as caught:
            place.office.open()
        assert place.file.name in str(caught.value.where)
        assert caught.value.fix == f"cp BACKUP/statement/{place.file.name} {place.office.folder}/statement/"


def test_a_trace_tells_nothing(spoilt: tuple[Revoked, str]) -> None:
    place, words = spoilt
    status, said = place.trace("--directory", str(place.office.folder), "--json")
    assert status == 2
    assert words in said or "is not the one" in said
    assert place.file.name in said


def test_an_audit_and_a_look_find_it_and_still_tell_the_rest(spoilt: tuple[Revoked, str]) -> None:
    place, words = spoilt
    report = audit(
        Log(place.log), ReleaseSources(trust=place.office.trust()), directory=lambda: place.load(audited=True)
    )
    (found,) = report.findings
    assert found.rule == "directory"
    assert words in found.message
    assert place.file.name in found.message
    done = CliRunner().invoke(app, ["directory", "status", str(place.office.folder), "--trust", str(place.trust)])
    assert done.exit_code == 1
    assert place.file.name in done.stdout
    options = ["directory", "status", str(place.office.folder), "--trust", str(place.trust), "--json"]
    (missing,) = json.loads(CliRunner().invoke(app, options).stdout)["missing"]
    assert missing["file"] == f"statement/{place.file.name}"


def test_a_copy_over_http_without_a_bundle_tells_nothing(revoked: Revoked) -> None:
    with running(revoked.office) as process:
        source = UrlSource(process.url, httpx.Client())
        assert view.load(source, revoked.office.trust(), now()).book.revoked("release", revoked.release)
        revoked.file.unlink()
        with pytest.raises(StatementMissing, match="the bundle of a revocation is missing") as caught:
            view.load(source, revoked.office.trust(), now())
        assert str(caught.value.where) == f"statement/{revoked.file.name} of {process.url}"
        source.close()


def test_what_cannot_be_read_is_no_yes(revoked: Revoked) -> None:
    """A bundle that only looks as if it were there, and an entry of a kind that a later version may write."""
    _folder(revoked)
    with pytest.raises(StatementMissing, match="cannot be read"):
        revoked.load()
    assert [index for index, _ in revoked.load(audited=True).missing] == [3]
    assert revoked.trace("--directory", str(revoked.office.folder))[0] == 2


def test_an_entry_that_cannot_be_read_is_no_yes(revoked: Revoked, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DirectoryState.apply

    def apply(book: DirectoryState, entry: bytes, bundle: bytes | None = None) -> None:
        if book.size == 3:
            raise TrustError("of a later version")
        real(book, entry, bundle)

    monkeypatch.setattr(DirectoryState, "apply", apply)
    with pytest.raises(TrustError, match="entry 3 of the directory does not hold: of a later version"):
        revoked.load()
    assert revoked.load(audited=True).problems == [(3, "of a later version")]


def test_a_trace_that_asked_no_directory_says_that_revocations_were_not_checked(revoked: Revoked) -> None:
    status, said = revoked.trace()
    assert (status, "revocations   not checked" in said) == (0, True)
    assert json.loads(revoked.trace("--json")[1])["revocations_checked"] is False
    options = ("--directory", str(revoked.office.folder))
    assert json.loads(revoked.trace(*options, "--json")[1])["revocations_checked"] is True
    status, said = revoked.trace(*options)
    assert (status, "not checked" in said, "revoked: the release" in said) == (1, False, True)


def test_several_are_told_at_once() -> None:
    lost = []
    for at in range(7):
        with pytest.raises(StatementMissing) as caught:
            bundles.own(StatementEntry("https://example.org/x", bytes([at] * 32)), None)
        lost.append(caught.value)
    assert lost[0].what == "the bundle of a statement is missing"
    told = bundles.missing(lost, "/var/lib/directory")
    assert told.what.startswith("7 bundles of statements are missing or changed")
    assert str(told.where).endswith("and 2 more of /var/lib/directory")
    assert told.fix == "cp BACKUP/statement/* /var/lib/directory/statement/"
    assert bundles.missing(lost[:1], "http://d").fix == f"cp BACKUP/statement/{'00' * 32} DIRECTORY/statement/"
