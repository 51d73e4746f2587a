"""Files that grow, files that are replaced, locks: the shard's only ways of writing."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from helix_lineage.errors import ShardError
from helix_lineage.shard.layout import TEMPORARY


class AppendFile:
    """A new file that only grows, or is cut back to an earlier size. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append all of `data`; `size` moves only when everything was written."""
        view, position = memoryview(data), self.size
        while view:
            written = os.pwrite(self._fd, view, position)
            view, position = view[written:], position + written
        self.size = position

    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Forget everything after `size`."""
        os.ftruncate(self._fd, size)
        self.size = size

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderLock:
    """An exclusive lock that the kernel drops when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises BlockingIOError when somebody holds it."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise

    def release(self) -> None:
        """Let others take the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_locked(path: Path) -> bool:
    """Does a process hold the lock now? Raises ShardError when the lock file can't be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ShardError(f"cannot look at the lock: {error}", where=str(path)) from error
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the folder's names durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
