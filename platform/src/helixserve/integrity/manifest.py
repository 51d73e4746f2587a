"""The files of an image against files.json, the list of them whose digest the release names."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import digest_bytes, loads
from helixserve.errors import NotReadyError
from helixserve.integrity import read as reading

_SETTLED_NS = 2_000_000_000
"""A file that was changed within a tick of the file system's clock may change once more without showing it."""

_NO_NAMES = frozenset(("", ".", ".."))
"""What is not part of a listed path."""

MANIFEST_BYTES = 256 * 1024 * 1024
"""Most bytes of files.json that are read at all: about a million files."""


class ImageFiles:
    """The files of an image, as files.json lists them.

    Args:
        manifest: the bytes of files.json.
        root: the folder that its paths are relative to.
        seen: what a look by a list of these very bytes gave (`look`): it has read them as canonical JSON already.
    """

    def __init__(self, manifest: bytes, root: Path, seen: Mapping[str, Sequence[int]] | None = None) -> None:
        self.seen = {name: tuple(identity) for name, identity in (seen or {}).items()}
        """Name → what the file system said of the file before it was hashed and found unchanged."""
        self._root = root
        self._prefix = f"{root.as_posix().rstrip('/')}/"
        self._entries = _entries(manifest, canonical=seen is not None)

    def read(self, path: str | Path) -> bytes:
        """The bytes of a listed file, hashed as they were read. Raises NotReadyError naming the file."""
        return self._read(self._name(path))

    def check_tree(self, folder: Path) -> None:
        """Every file below `folder` is listed and unchanged, and none is missing. Raises NotReadyError."""
        # An image has about ten thousand files and a server waits for this: no path object a file.
        prefix, above = folder.relative_to(self._root).as_posix() + "/", len(self._prefix)
        present = {path[above:] for path in _walk(folder)}
        listed = {name for name in self._entries if name.startswith(prefix)}
        own = f"{prefix}files.json"  # which can't list itself
        for name in sorted(present - listed - {own}):
            raise NotReadyError("the release does not list this file", where=name)
        for name in sorted(listed - present):
            raise NotReadyError("a file of the release is missing", where=name)
        for name in sorted(listed):
            self._check(name)

    def check(self, path: str | Path) -> None:
        """The file is listed and unchanged. Raises NotReadyError naming it."""
        self._check(self._name(path))

    def compare(self, path: str | Path, digest: str) -> None:
        """Bytes of that digest are what the release lists at this path. Raises NotReadyError naming it."""
        self._compare(self._name(path), digest)

    def _check(self, name: str) -> None:
        entry, path = self._entries.get(name), self._path(name)
        if entry is None or "link" not in entry:
            before = _identity(path)
            if before is None or self.seen.get(name) != before:
                self._read(name)
                if before is not None:
                    self.seen[name] = before
        elif not os.path.islink(path) or os.readlink(path) != entry["link"]:
            raise NotReadyError("a link is not the one that the release lists", where=name)

    def _read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None or "digest" not in entry:
            raise NotReadyError("the release does not list this file", where=name)
        path = self._path(name)
        data = reading.read(path, where=name, what="a file of the image", limit=entry["size"], exact=True)
        self._compare(name, digest_bytes(data))
        return data

    def _compare(self, name: str, digest: str) -> None:
        entry = self._entries.get(name)
        if entry is None or "digest" not in entry:
            raise NotReadyError("the release does not list this file", where=name)
        if entry["digest"] != digest:
            raise NotReadyError(f"the file is {digest}, but the release lists {entry['digest']}", where=name)

    def _path(self, name: str) -> str:
        return self._prefix + name

    def _name(self, path: str | Path) -> str:
        """The path as files.json has it. A path that could climb out has no name there."""
        text = str(path)
        name = text.removeprefix(self._prefix)
        if name == text or not _NO_NAMES.isdisjoint(name.split("/")):
            raise NotReadyError("this path leads out of the image", where=text)
        return name


def read_list(path: Path) -> bytes:
    """The bytes of files.json. Raises NotReadyError."""
    return reading.read(path, where="files.json", what="the list of the image's files", limit=MANIFEST_BYTES)


def _identity(path: str) -> tuple[int, ...] | None:
    """What changes whenever a file is written or replaced; None when nothing can be said."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if time.time_ns() - found.st_ctime_ns < _SETTLED_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _entries(manifest: bytes, *, canonical: bool) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(manifest) if canonical else loads(manifest)
        if document["version"] != 1:
            raise NotReadyError(f"files.json has version {document['version']!r}, not 1", where="files.json")
        return {_listed(entry): entry for entry in document["files"]}
    except (LineageError, KeyError, TypeError) as error:
        raise NotReadyError(f"files.json is malformed: {error}", where="files.json") from error


def _listed(entry: Mapping[str, Any]) -> str:
    """The path of a line of files.json."""
    name = entry["path"]
    if not isinstance(name, str) or not _NO_NAMES.isdisjoint(name.split("/")):
        raise NotReadyError(f"files.json names {name!r}, which is not a path inside the image", where="files.json")
    if "link" not in entry and (type(entry["size"]) is not int or entry["size"] < 0):
        raise NotReadyError(f"files.json gives {name} the size {entry['size']!r}", where="files.json")
    return name


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        yield from (f"{parent}/{name}" for name in names)
        # A link to a folder is a link, not a folder.
        yield from (path for name in folders if os.path.islink(path := f"{parent}/{name}"))
