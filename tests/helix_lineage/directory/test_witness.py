"""A directory only grows, or its witness names it; the kept checkpoint lies elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helix_lineage.directory.source import FolderSource
from helix_lineage.directory.witness import newest, opened, replace
from helix_lineage.errors import DirectoryError, TrustError
from helix_lineage.tlog import checkpoint
from tests.helix_lineage.directory.support import Office, directory_key, submit
from tests.helix_lineage.support import NOW


def grown(office: Office, shards: int, *, first: int = 60) -> None:
    directory = office.open()
    submit(directory, office.released())
    for at in range(shards):
        directory.take(office.shard(first + at).registration())
    directory.close()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    made = Office(tmp_path / "here")
    made.root.mkdir()
    return made


def test_every_growth_is_witnessed(office: Office, tmp_path: Path) -> None:
    seen, kept = None, tmp_path / "kept"
    for shards in range(1, 8):
        grown(office, shards)
        note, seen = newest(FolderSource(office.folder), seen, office.trust(), NOW)
        replace(kept, note)
        assert opened(kept.read_bytes(), office.trust(), NOW) == seen
        assert seen.size == shards + 1
        assert newest(FolderSource(office.folder), seen, office.trust(), NOW)[1] == seen
    assert newest(FolderSource(office.folder), checkpoint.Checkpoint(seen.origin, 0, seen.root), office.trust(), NOW)


def _rolled_back(office: Office, copy: Path) -> None:
    shutil.rmtree(office.folder)
    shutil.copytree(copy, office.folder)


def _forked(office: Office, copy: Path) -> None:
    _rolled_back(office, copy)
    grown(office, 9, first=90)


def _another(office: Office, copy: Path) -> None:
    office.name = "other"
    office.root = copy.parent
    grown(office, 9)


def _tile(office: Office, copy: Path) -> None:
    path = office.folder / "tile/0/000.p/6"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def _short_tile(office: Office, copy: Path) -> None:
    path = office.folder / "tile/0/000.p/6"
    path.write_bytes(path.read_bytes()[:-1])


SPOILT: list[tuple[Callable[[Office, Path], None], str]] = [
    (_rolled_back, "rolled back: it has 3 entries, but showed 6"),
    (_forked, "forked: its 12 entries do not extend the 6"),
    (_another, "another directory answers: helix.example/directory/other"),
    (_tile, "tiles are not those of its checkpoint"),
    (_short_tile, "tiles do not hold"),
]


@pytest.mark.parametrize(("spoil", "words"), SPOILT, ids=[spoil.__name__ for spoil, _ in SPOILT])
def test_what_did_not_only_grow_is_named(
    office: Office, tmp_path: Path, spoil: Callable[[Office, Path], None], words: str
) -> None:
    copy = tmp_path / "copy"
    grown(office, 2)
    shutil.copytree(office.folder, copy)
    grown(office, 5)
    _, seen = newest(FolderSource(office.folder), None, office.trust(), NOW)
    spoil(office, copy)
    with pytest.raises(TrustError, match=words):
        newest(FolderSource(office.folder), seen, office.trust(), NOW)


def test_a_kept_checkpoint_that_was_edited_says_nothing(office: Office) -> None:
    grown(office, 1)
    note, _ = newest(FolderSource(office.folder), None, office.trust(), NOW)
    for spoilt in (note.replace(b"\n2\n", b"\n1\n"), b"", note[:-9]):
        with pytest.raises(TrustError, match="the kept checkpoint does not hold"):
            opened(spoilt, office.trust(), NOW)
    other = Office(office.root, key=directory_key(5))
    with pytest.raises(TrustError, match="the kept checkpoint does not hold"):
        opened(note, other.trust(), NOW)


def test_a_checkpoint_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryError, match="cannot keep the checkpoint"):
        replace(tmp_path / "file" / "kept", b"note")
