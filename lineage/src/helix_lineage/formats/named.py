"""Files that a user names on a command line: a regular file, or `-` for standard input; and files written for them.

What is named by mistake (a folder, a pipe that nobody writes to, a device, a disk image) is an error that says so.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp(), "page.html")
>>> write_named(path, b"<html>", "the page")
>>> read_named(path, "the page")
b'<html>'
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from helix_lineage.errors import LineageError
from helix_lineage.formats.untrusted import MAX_BUNDLE_BYTES, read

STANDARD_INPUT = Path("-")


def read_named(path: Path, what: str, *, limit: int = MAX_BUNDLE_BYTES, fix: str | None = None) -> bytes:
    """The bytes of a file that a user named, a link to one too. Raises LineageError.

    Args:
        what: what the file is, as it stands in a sentence: "the receipt".
        limit: most bytes that it may have.
        fix: what mends it.
    """
    if path == STANDARD_INPUT:
        return _standard_input(what, limit)
    try:
        return read(path, limit=limit, follow=True)
    except OSError as error:
        raise LineageError(f"cannot read {what}: {error.strerror}", where=str(path), fix=fix) from error
    except ValueError as error:  # a NUL in the name
        raise LineageError(f"cannot read {what}: {error}", where=str(path), fix=fix) from error


def write_named(path: Path, data: bytes, what: str) -> None:
    """Write a file that a user named, whole or not at all. Raises LineageError."""
    check_writable(path, what)
    target = path.resolve()  # of a link, what it leads to
    half = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        half.write_bytes(data)
        half.replace(target)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise _not_written(what, error.strerror, path) from error


def check_writable(path: Path, what: str) -> None:
    """Raises LineageError where `write_named` could write no file: before something is done that cannot be undone."""
    if path.exists() and not path.is_file():
        raise _not_written(what, "something else than a regular file lies there", path)
    folder = path.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise _not_written(what, f"there is no folder {folder} that can be written to", path)


def _standard_input(what: str, limit: int) -> bytes:
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise LineageError(f"cannot read {what}: it has more than {limit} bytes", where="standard input")
    return data


def _not_written(what: str, why: str | None, path: Path) -> LineageError:
    return LineageError(f"cannot write {what}: {why}", where=str(path), fix="name another file")
