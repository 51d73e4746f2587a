from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from helix_lineage.errors import ShardError
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.recovery import recover_others
from helix_lineage.tlog import disk as files
from helix_lineage.tlog.disk import AppendFile, FolderLock, lock_new_folder
from helix_lineage.tlog.layout import NEW_PREFIX
from tests.helix_lineage.disk import FailingDisk
from tests.helix_lineage.support import header


def test_zeros_are_laid_ahead_now_and_then_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = AppendFile(path, ahead=100)
    seen = []
    for _ in range(30):
        file.write(b"ten bytes.")
        seen.append(path.stat().st_size)
        assert path.read_bytes() == (b"ten bytes." * 30)[: file.size].ljust(seen[-1], b"\0")
    assert len(set(seen)) == 3, "most writes change no size"
    file.trim()
    assert path.read_bytes() == b"ten bytes." * 30
    file.write(b"!")
    assert (file.size, path.stat().st_size) == (301, 301), "and none are laid again"
    file.cut(300)
    assert path.read_bytes() == b"ten bytes." * 30
    file.close()


def test_without_room_for_zeros_what_is_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    disk = FailingDisk(tmp_path / "disk", 2, errno.ENOSPC)  # the first call opens, the second writes
    monkeypatch.setattr(files, "os", disk)
    file = AppendFile(tmp_path / "disk" / "file", ahead=100)
    file.write(b"one")
    assert disk.failed == ["write"]
    assert (tmp_path / "disk" / "file").read_bytes() == b"one", "what was laid of them is given back"
    file.write(b"two")
    assert len(disk.ops) == len([op for op in disk.ops if op.kind != "write"]) + 3, "they are not tried each time"
    file.trim()
    assert (tmp_path / "disk" / "file").read_bytes() == b"onetwo"
    file.close()


def test_a_failed_trim_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "file", ahead=100)
    file.write(b"one")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="gone"):
            file.trim()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    file.trim()
    assert len(synced) == 1
    file.trim()
    assert len(synced) == 1


class _Removers:
    """A kernel in whose `flock` other processes start, `times` times, before or after they find the lock taken."""

    def __init__(self, log: Path, times: int, *, after: bool) -> None:
        self.log, self.left, self.after, self.busy = log, times, after, False

    def __getattr__(self, name: str) -> object:
        return getattr(fcntl, name)

    def flock(self, fd: int, operation: int) -> None:
        if self.busy or not self.left:
            fcntl.flock(fd, operation)
            return
        self.busy, self.left = True, self.left - 1
        assert list(recover_others(self.log, "", lambda: 0, bytes.hex)) == []
        self.busy = False
        if self.after:
            raise BlockingIOError(errno.EWOULDBLOCK, "the remover has it")
        fcntl.flock(fd, operation)  # of a file that is gone


@pytest.mark.parametrize("after", [False, True])
def test_a_new_folder_that_another_start_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    folder = tmp_path / f"{NEW_PREFIX}{'ab' * 16}"
    with monkeypatch.context() as patch:
        patch.setattr(files, "fcntl", _Removers(tmp_path, 3, after=after))
        lock = lock_new_folder(folder, folder / "lock")
    assert list(recover_others(tmp_path, "", lambda: 0, bytes.hex)) == []
    assert folder.is_dir(), "it is taken now"
    with pytest.raises(BlockingIOError):
        FolderLock(folder / "lock")
    lock.release()


def test_a_remover_that_comes_late_leaves_what_was_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opened the lock of a folder that another remover took away since, and the maker made again and locked."""
    folder = tmp_path / f"{NEW_PREFIX}{'ab' * 16}"
    folder.mkdir()
    locks: list[FolderLock] = []

    class Late:
        def __getattr__(self, name: str) -> object:
            return getattr(fcntl, name)

        def flock(self, fd: int, operation: int) -> None:
            monkeypatch.undo()
            assert list(recover_others(tmp_path, "", lambda: 0, bytes.hex)) == []
            assert not folder.exists()
            locks.append(lock_new_folder(folder, folder / "lock"))
            fcntl.flock(fd, operation)

    monkeypatch.setattr(files, "fcntl", Late())
    assert list(recover_others(tmp_path, "", lambda: 0, bytes.hex)) == []
    assert locks[0].lies_at(folder / "lock")
    locks[0].release()


def test_a_new_folder_may_be_gone_before_its_lock_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, made, make = tmp_path / "new", 0, files.make_folder

    def make_and_lose(path: Path) -> None:
        nonlocal made
        make(path)
        if path == folder:
            made += 1
            if made < 3:
                path.rmdir()

    monkeypatch.setattr(files, "make_folder", make_and_lose)
    lock_new_folder(folder, folder / "lock").release()
    assert made == 3


def test_a_new_folder_that_is_always_removed_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", _Removers(tmp_path, 1000, after=False))
    monkeypatch.setattr(files, "_PAUSE_SECONDS", 0)
    with pytest.raises(ShardError, match="others keep removing the new folder"):
        ShardWriter.create(tmp_path, header())
