"""Read a file that somebody else may be changing: once, bounded, and only if it is a file.

A link, pipe, device or folder in a file's place is refused by name, and never waited for. What is
given is what one descriptor held; whoever hashes these bytes and uses these bytes can't be shown
other ones in between.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from helixserve.errors import NotReadyError

_CHUNK = 1 << 20


def read(path: str | Path, *, where: str, what: str, limit: int, exact: bool = False, follow: bool = False) -> bytes:
    """The bytes of a regular file. Raises NotReadyError.

    Args:
        where: names the file in errors.
        what: what it is, for people.
        limit: most bytes to read; a larger file is refused before any of it is read.
        exact: whether it must have `limit` bytes.
        follow: whether the last part of the path may be a link. A mounted ConfigMap is one; a file of an image is not.
    """
    # Not to wait for a pipe's writer or a terminal.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        # Opening a device may do something by itself.
        _check(os.stat(path, follow_symlinks=follow), where, what, limit, exact=exact)
        fd = os.open(path, flags)
        try:
            _check(os.fstat(fd), where, what, limit, exact=exact)
            data = _read(fd, limit)
        finally:
            os.close(fd)
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise NotReadyError(f"cannot read {what}: {why}", where=where) from error
    if len(data) > limit or (exact and len(data) != limit):
        raise NotReadyError(f"{what} changes while it is read", where=where)
    return data


def _read(fd: int, limit: int) -> bytes:
    """Until the end, or one byte more than the limit: a file that grows is not followed."""
    chunks, seen = [], 0
    while seen <= limit and (chunk := os.read(fd, min(_CHUNK, limit + 1 - seen))):
        chunks.append(chunk)
        seen += len(chunk)
    return b"".join(chunks)


def _check(found: os.stat_result, where: str, what: str, limit: int, *, exact: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise NotReadyError(f"cannot read {what}: it is a link", where=where)
    if not stat.S_ISREG(found.st_mode):
        raise NotReadyError(f"cannot read {what}: it is not a regular file", where=where)
    if found.st_size > limit:
        raise NotReadyError(f"{what} has {found.st_size} bytes, more than {limit}", where=where)
    if exact and found.st_size != limit:
        raise NotReadyError(f"{what} has {found.st_size} bytes, not {limit}", where=where)
