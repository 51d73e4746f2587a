"""Files and JSON that anybody may have written: read without waiting, without end, and without a traceback.

Whoever can write into a log, a store or a folder of releases can put a pipe, a link, a device, a file of
a terabyte or two hundred thousand nested lists there. One open and one fstat tell what lies in a file's place.

>>> import tempfile
>>> os.mkfifo(pipe := Path(tempfile.mkdtemp(), "journal"))
>>> try:
...     read(pipe, limit=10)
... except RefusedFile as error:
...     print(error.strerror)
it is a pipe, not a regular file
>>> parse_json(b'{"a": [1.5, "x"]}')
{'a': [1.5, 'x']}
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_BUNDLE_BYTES = 16 * 2**20
"""Of a signed bundle, a record, a trust root: what is read as JSON."""
MAX_DEPTH = 64
"""How deep JSON may nest. A release's statement nests less than 10 deep."""
_MAX_DIGITS = 20
"""Of an integer; RFC 8785 holds fewer."""
_MAX_READ = 2**30
"""Bytes that one system call is asked for."""
_MAX_HOLES = 256 * 2**20
"""Bytes that may follow a hole. What our writers wrote has none: a sparse terabyte costs whoever plants it nothing."""

# Not to wait for a pipe's writer, and not to become a terminal's process.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class RefusedFile(OSError):
    """What lies there is no regular file of a size that may be. Callers turn it, as any OSError, into their own."""


_PLANTED = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


def is_planted(error: OSError) -> bool:
    """Is something else in the file's place, rather than the disk or the permissions at fault?"""
    return isinstance(error, RefusedFile) or error.errno in _PLANTED


def read(path: Path, *, limit: int, follow: bool = False) -> bytes:
    """The bytes of a regular file. Raises OSError, RefusedFile included.

    Args:
        limit: most bytes that it may have; a larger file is refused before any of it is read.
        follow: whether the last part of the path may be a link: of what a user named, or a mounted ConfigMap.
    """
    with opened(path, limit=limit, follow=follow) as (fd, size):
        # One byte more than there should be: less than that is the end.
        data = os.read(fd, min(size + 1, _MAX_READ))
        if len(data) <= size < _MAX_READ:
            return data
        chunks, seen = [data], len(data)
        while seen <= limit and (chunk := os.read(fd, min(limit + 1 - seen, _MAX_READ))):
            chunks.append(chunk)
            seen += len(chunk)
        if seen > limit:
            raise RefusedFile(errno.EFBIG, f"it grows beyond {limit} bytes", str(path))
        return b"".join(chunks)


@contextmanager
def opened(path: Path, *, limit: int, follow: bool = False) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file. Raises OSError, as `read` does."""
    try:
        fd = os.open(path, _READ if follow else _READ | os.O_NOFOLLOW)
    except OSError as error:
        raise _refused(error, path) from error
    try:
        yield fd, check_regular(fd, path, limit=limit)
    finally:
        os.close(fd)


def check_regular(fd: int, path: Path, *, limit: int | None = None) -> int:
    """The size of a regular file. Raises RefusedFile: no such, of more bytes than `limit`, or a large one of holes."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise RefusedFile(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    size = found.st_size
    if limit is not None and size > limit:
        raise RefusedFile(errno.EFBIG, f"it has {size} bytes, more than {limit}", str(path))
    if limit is not None and size > _MAX_HOLES:
        written = os.lseek(fd, 0, os.SEEK_HOLE)
        os.lseek(fd, 0, os.SEEK_SET)
        if size - written > _MAX_HOLES:
            raise RefusedFile(
                errno.EFBIG, f"it has {size} bytes, which were never written from {written} on", str(path)
            )
    return size


def check_folder(path: Path) -> None:
    """Raises RefusedFile when something else than a folder lies there, a link to one too. An absent one is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a file")
        raise RefusedFile(errno.ENOTDIR, f"it is {kind}, not a folder", str(path))


def file_digest(path: Path) -> str:
    """The digest `sha256:<64 hex>` of a regular file of any size. Raises OSError."""
    with opened(path, limit=2**63) as (fd, _), open(fd, "rb", closefd=False) as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(data: bytes) -> Any:
    """JSON without repeated keys, NaN, infinities, integers of many digits or deep nesting. Raises ValueError."""
    try:
        value = json.loads(data, parse_constant=_constant, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(f"it nests more than {MAX_DEPTH} deep") from error
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise ValueError(f"it nests more than {MAX_DEPTH} deep")
            waiting.extend((inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item))
    return value


def _refused(error: OSError, path: Path) -> OSError:
    if error.errno == errno.ELOOP:
        return RefusedFile(errno.ELOOP, "it is a link, or behind links without end", str(path))
    if error.errno == errno.ENXIO:
        return RefusedFile(errno.ENXIO, "it is a socket or a device, not a regular file", str(path))
    return error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has a key twice")
    return made


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits")
    return int(text)
