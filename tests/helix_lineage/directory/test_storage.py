"""The directory's folder: what was answered stays, a torn tail goes, a rollback is refused, two never write."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.directory import view
from helix_lineage.directory.service import Directory, load_key, origin_of
from helix_lineage.directory.source import FolderSource
from helix_lineage.errors import DirectoryAway, DirectoryError, DirectoryRefusal, TrustError
from helix_lineage.tlog import disk, journal
from tests.helix_lineage.directory.support import Office, directory_key, now, submit


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def filled(office: Office, shards: int = 3) -> Directory:
    directory = office.open()
    submit(directory, office.released())
    for at in range(shards):
        shard = office.shard(60 + at)
        directory.take(shard.registration())
        directory.take(shard.grow(2).advance(1))
    return directory


def held(office: Office) -> view.View:
    return view.load(FolderSource(office.folder), office.trust(), now(), audited=True)


def test_a_restart_goes_on_with_the_same_log(office: Office) -> None:
    directory = filled(office, 200)  # more than a tile
    before = directory.note
    directory.close()
    again = office.open()
    assert again.note == before
    assert again.book.shards == held(office).book.shards
    again.take(office.shard().registration(), seen=300)
    again.close()
    assert held(office).checkpoint.size == 402
    assert held(office).problems == []


def test_two_processes_do_not_own_one_directory(office: Office) -> None:
    directory = filled(office, 1)
    with pytest.raises(DirectoryError, match="another process runs this directory"):
        office.open()
    directory.close()
    office.open().close()


def test_a_torn_tail_is_cut_off_and_kept_aside(office: Office) -> None:
    filled(office).close()
    path = office.folder / "journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x05\x00\x00\x00\x01half")
    shutil.rmtree(office.folder / "tile")
    directory = office.open()
    assert directory.book.size == 7
    directory.close()
    assert (office.folder / "journal.torn").read_bytes() == b"\x05\x00\x00\x00\x01half"
    assert path.read_bytes() == whole
    assert held(office).problems == []


def test_a_log_that_was_only_begun_is_begun_again(office: Office) -> None:
    office.folder.mkdir()
    (office.folder / "journal").write_bytes(b"helix-jour")
    directory = office.open()
    submit(directory, office.released())
    directory.close()
    assert held(office).checkpoint.size == 1


DAMAGE: dict[str, tuple[Callable[[Office], None], str]] = {
    "rolled back": (lambda o: _write(o, _earlier(o)), "but 7 were published: rolled back, or damaged"),
    "emptied": (lambda o: _write(o, b""), "holds no checkpoint"),
    "an edited entry": (lambda o: _write(o, _flipped(o)), "but 7 were published"),
    "another key": (lambda o: setattr(o, "key", directory_key(9)), "not this key's"),
    "another name": (lambda o: setattr(o, "name", "other"), "not this key's"),
}


def _write(office: Office, data: bytes) -> None:
    (office.folder / "journal").write_bytes(data)


def _earlier(office: Office) -> bytes:
    data = (office.folder / "journal").read_bytes()
    return data[: journal.parse(data).checkpoints[-2].end]


def _flipped(office: Office) -> bytes:
    data = bytearray((office.folder / "journal").read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_strange_log_is_not_opened(office: Office, damage: str) -> None:
    filled(office).close()
    spoil, words = DAMAGE[damage]
    spoil(office)
    with pytest.raises(DirectoryError, match=words):
        office.open()
    with pytest.raises(DirectoryError, match=words):  # and nothing was let go of but the lock
        office.open()


class FailingOnce:
    """The real `os`, but the `at`-th call of one name fails."""

    def __init__(self, name: str, at: int, error: int) -> None:
        self.name, self.left, self.error = name, at, error

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self.name:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **options)

        return call


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("open", errno.EIO),
        ("pwrite", errno.ENOSPC),
        ("fdatasync", errno.EIO),
        ("fsync", errno.EIO),
        ("replace", errno.EIO),
    ],
)
def test_what_fails_is_not_answered_and_what_was_answered_stays(
    office: Office, monkeypatch: pytest.MonkeyPatch, name: str, error: int
) -> None:
    """Every call of each kind fails once, while a directory takes a release and a shard's life."""
    for at in range(1, 8):
        here = Office(office.root / f"{name}{at}")
        here.root.mkdir()
        directory = here.open()
        answered = []
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", FailingOnce(name, at, error))
            shard = here.shard()
            released = here.released()
            for step in (
                lambda d=directory, b=released: submit(d, b), lambda d=directory, s=shard: d.take(s.registration()),
                lambda d=directory, s=shard: d.take(s.grow(2).advance(1)),
            ):  # fmt: skip
                try:
                    answered.append(step())
                except (DirectoryAway, DirectoryRefusal):
                    continue
        with contextlib.suppress(OSError):
            directory.close()
        again = here.open()
        again.close()
        kept = view.load(FolderSource(here.folder), here.trust(), now(), audited=True)
        assert kept.problems == []
        found = FolderSource(here.folder).entries(0, kept.checkpoint.size)
        assert [found[receipt.index] for receipt in answered] == [receipt.entry for receipt in answered]


def test_the_key_is_its_owners(office: Office) -> None:
    key, trust = office.write_keys()
    assert origin_of(load_key(key), office.trust(), now()) == office.origin
    with pytest.raises(TrustError, match="no key of role 'directory'"):
        origin_of(directory_key(9), office.trust(), now())
    key.chmod(0o644)
    with pytest.raises(DirectoryError, match="others can read"):
        load_key(key)
    key.write_text("x")
    key.chmod(0o600)
    with pytest.raises(DirectoryError, match="cannot read the directory's key"):
        load_key(key)
    assert trust.exists()
