"""What a user may name by mistake, or an attacker put there, in a file's place on a command line."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 10**9)


def _binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def _nested(path: Path) -> None:
    path.write_bytes(b"[" * 20_000 + b"]" * 20_000)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "five sparse gigabytes": _sparse,
}
"""What lies there → how it is planted."""
STRANGE: dict[str, Callable[[Path], None]] = {
    "binary bytes": _binary,
    "deep nesting": _nested,
    "an empty file": Path.touch,
}
NO_FOLDERS: dict[str, Callable[[Path], None]] = {kind: NO_FILES[kind] for kind in NO_FILES if kind != "a folder"}


@contextmanager
def bounded_memory(more: int = 2**30) -> Iterator[None]:
    """No more than so many bytes beyond what this process has: who reads a device without end fails, and soon."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def paths_of(callback: Callable[..., object]) -> set[str]:
    """The parameters of a command that are paths, or lists of them."""
    found = set()
    for name, hint in get_type_hints(callback, include_extras=True).items():
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if kind is Path or "pathlib.Path" in str(kind):
            found.add(name)
    return found
