"""Files that grow, files that are replaced, folders, locks: the shard's only ways of writing.

Whatever changes the disk below a shard goes through `os` here, and nowhere else: tests put a
simulated disk in its place, which fails, tears, reorders and forgets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Self

from helix_lineage.errors import ShardError, reason
from helix_lineage.formats import untrusted
from helix_lineage.tlog.layout import TEMPORARY

_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link or a pipe in a file's place is neither followed nor waited for."""

_TRIES, _PAUSE_SECONDS = 100, 0.01
"""Who removes a folder holds its lock for about a millisecond; each process does so once, when it starts."""


class AppendFile:
    """A new file that only grows, or is cut back to an earlier size. Raises OSError.

    Args:
        ahead: bytes of zeros that are laid after what was written, now and then. What is written over them changes
            neither the file's size nor its blocks, so a sync waits for the bytes alone, and not for the file system's
            own journal: it takes half the time. `trim` takes them away; who reads the file meanwhile sees them.
    """

    def __init__(self, path: Path, *, ahead: int = 0) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._ahead = ahead
        self._next = 0
        self.size = 0
        """Bytes that were written; zeros may follow in the file."""

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Go on with a file that is there, at its end."""
        file = cls.__new__(cls)
        file._fd = _open(path, os.O_RDWR)
        file._ahead = file._next = 0
        file.size = os.fstat(file._fd).st_size
        return file

    def write(self, data: bytes) -> None:
        """Append all of `data`; `size` moves only when everything was written."""
        self.size = _write_all(self._fd, data, self.size)
        if self._ahead and self.size > self._next:
            self._lay()

    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Forget everything after `size`."""
        os.ftruncate(self._fd, size)
        self.size = self._next = size

    def trim(self) -> None:
        """Take away, durably, the zeros that follow what was written, and lay no more."""
        self._ahead = 0
        if self._next > self.size:
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
            self._next = self.size

    def _lay(self) -> None:
        """Zeros ahead. They are a help and no promise: where they find no room, their place is tried later."""
        self._next = self.size + self._ahead
        try:
            _write_all(self._fd, bytes(self._ahead), self.size)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderLock:
    """An exclusive lock that the kernel drops when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises BlockingIOError when somebody holds it."""
        self._fd = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise

    def lies_at(self, path: Path) -> bool:
        """Is it the lock of the file that is there now, and not of one that was removed?"""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others take the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock_new_folder(path: Path, lock: Path) -> FolderLock:
    """Make a folder and take the lock in it.

    A process that starts between the two may take the folder for a dead one's, and remove it: then again.
    Raises OSError, and ShardError as `make_folder` does.
    """
    for _ in range(_TRIES):
        make_folder(path)
        with suppress(FileNotFoundError, BlockingIOError):
            taken = FolderLock(lock)
            if taken.lies_at(lock):
                return taken
            taken.release()
        time.sleep(_PAUSE_SECONDS)
    raise OSError(errno.EBUSY, "others keep removing the new folder", str(path))


def is_locked(path: Path) -> bool:
    """Does a process hold the lock now? Raises ShardError when the lock file can't be opened."""
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ShardError(f"cannot look at the lock: {error.strerror}", where=str(path)) from error
    try:
        # A shared lock, because an auditor may have no right to write.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file so that readers see the old one or the new one. Raises OSError."""
    make_folder(path.parent)
    temporary = path.with_name(path.name + TEMPORARY)
    fd = _open_temporary(temporary)
    try:
        try:
            _write_all(fd, data, 0)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def overwrite(path: Path, data: bytes, offset: int) -> None:
    """Write over bytes that are there, and return when they are on the disk. Raises OSError."""
    fd = _open(path, os.O_RDWR)
    try:
        _write_all(fd, data, offset)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def cut_file(path: Path, size: int) -> None:
    """Forget, durably, everything after `size`. Raises OSError."""
    fd = _open(path, os.O_RDWR)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: Path, *, but: Container[Path] = ()) -> None:
    """Remove a folder and all that is in it, as far as that goes; `but` these files and the folders above them."""
    for folder, folders, names in os.walk(path, topdown=False):
        for file in [Path(folder, name) for name in names]:
            if file not in but:
                with suppress(OSError):
                    os.unlink(file)
        for name in folders:
            with suppress(OSError):
                os.rmdir(Path(folder, name))
    with suppress(OSError):
        os.rmdir(path)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing; their names are durable.

    Raises OSError, and ShardError when a folder is there that may vanish.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    try:
        sync_folder(path.parent)
    except OSError as error:
        try:
            os.rmdir(path)  # else the next attempt would find it, and believe in its name
        except OSError:
            raise ShardError(f"a folder may not outlive a power cut: {reason(error)}", where=str(path)) from error
        raise


def rename_file(path: Path, to: Path) -> None:
    """Give a file another name; a power cut may bring the old one back. Raises OSError."""
    os.replace(path, to)


def rename_folder(path: Path, to: Path) -> None:
    """Give a folder its final name, durably. Raises OSError."""
    os.rename(path, to)
    sync_folder(to.parent)


def sync_folder(path: Path) -> None:
    """Make the folder's names durable. Raises OSError."""
    _sync(path, os.O_DIRECTORY)


def sync_if_there(path: Path) -> None:
    """Make a file's bytes or a folder's names durable; what was removed meanwhile needs nothing. Raises OSError."""
    with suppress(FileNotFoundError):
        _sync(path)


def _sync(path: Path, flags: int = 0) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open(path: Path, flags: int) -> int:
    """Open a regular file, and nothing else in its place. Raises OSError."""
    fd = os.open(path, flags | _SAFE, 0o640)
    try:
        untrusted.check_regular(fd, path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _open_temporary(path: Path) -> int:
    """A new file, or an older attempt's. What else stands there makes room. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return _open(path, flags)
    except OSError as error:
        if not untrusted.is_planted(error):
            raise
        os.unlink(path)
        return _open(path, flags)


def _write_all(fd: int, data: bytes, position: int) -> int:
    """Write everything at a place; gives the place after it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view, position = view[written:], position + written
    return position


def probe_room(path: Path, size: int) -> None:
    """Write, sync and remove a file of so many bytes. Raises OSError."""
    try:
        remove_file(path)
        file = AppendFile(path)
        try:
            file.write(bytes(size))
            file.sync()
        finally:
            file.close()
    finally:
        remove_file(path)
