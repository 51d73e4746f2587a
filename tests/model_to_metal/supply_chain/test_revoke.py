"""`helix lineage revoke`: real keys, cosign and directory; what it did shows in the directory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helix_lineage.attestations.revocation import verify_revocation
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import view
from helix_lineage.directory.source import FolderSource
from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from model_to_metal.cli.main import app

RELEASE = "sha256:" + "a" * 64


@pytest.fixture
def here(signing: State, built_tools: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("HELIX_STATE", str(signing.root))
    return signing


def helix(*words: str) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["lineage", *words])
    return done.exit_code, done.stdout, done.exception


def test_a_revocation_is_signed_and_in_the_directory(here: State, tmp_path: Path) -> None:
    kept = tmp_path / "revocation.sigstore.json"
    words = ("revoke", "release", RELEASE, "--reason", "wrong weights", "--since", "2026-01-01T00:00:00Z")
    status, said, error = helix(*words, "--keep", str(kept), "--json")
    assert (status, error) == (0, None)
    told = json.loads(said)
    assert (told["index"], told["directory"]) == (0, "helix.example/directory/laptop")
    root, now = Trust.load(here.trust), datetime.now(UTC)
    found = verify_revocation(kept.read_bytes(), root, at=now)
    assert (found.kind, found.target, found.reason, found.index) == ("release", RELEASE, "wrong weights", 0)
    seen = view.load(FolderSource(here.directory), root, now, audited=True)
    assert seen.problems == []
    assert seen.book.revoked("release", RELEASE) == found
    assert told["known"] is False
    said = helix("revoke", "image", RELEASE, "--reason", "again")[1]
    assert "entry 1 of helix.example/directory/laptop\n" in said
    assert said.endswith("note: no image of that digest is known there; check it, and revoke the one that was meant\n")


def test_what_the_directory_knows_is_revoked_without_a_note(here: State) -> None:
    (key,) = [key for key in Trust.load(here.trust).keys if key.role == "promoter"]
    status, said, error = helix("revoke", "key", key.key_id, "--reason", "the laptop was stolen")
    assert (status, error) == (0, None)
    assert "note:" not in said


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("commit", RELEASE), "kind is 'commit'"),
        (("release", "abc"), "not a digest"),
        (("release", RELEASE, "--since", "yesterday"), "not a time"),
        (("release", RELEASE, "--since", "2026-01-01T00:00:00"), "no zone"),
        (("release", RELEASE, "--since", "0001-01-01T00:00:00+23:59"), "not a time of the years"),
        (("release", RELEASE, "--since", "9999-12-31T23:59:59-23:59"), "not a time of the years"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_signed(here: State, words: tuple[str, ...], what: str) -> None:
    _, _, error = helix("revoke", *words, "--reason", "x")
    assert isinstance(error, LineageError)
    assert what in error.what


def test_the_help_has_examples() -> None:
    assert "Examples:" in helix("revoke", "--help")[1]
    assert {"serve", "status", "submit"} <= set(helix("directory", "--help")[1].split())
