"""Locks: which file of which distribution goes into a build, by name and SHA-256.

A lock is a text that pip, Nix and people read alike: one line a distribution, one file each, no
address of any registry. This module reads and writes the form; `resolve` finds what goes in.

>>> line = "numpy==2.0.0 --hash=sha256:" + "0" * 64 + "  # numpy-2.0.0-py3-none-any.whl"
>>> parse(line)[0].version
'2.0.0'
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.errors import explaining
from model_to_metal.errors import LockError

_LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=(?P<digest>sha256:[0-9a-f]{64})  # (?P<file>\S+)")
_DEB_LINE = re.compile(r"(?P<path>pool/main/\S+\.deb) (?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One distribution, as one file."""

    name: str
    """Normalised name (PEP 503)."""
    version: str
    """Exact version."""
    digest: str
    """`sha256:<64 hex>` of the file."""
    filename: str
    """Name of the wheel or source archive."""

    def line(self) -> str:
        """The pin as its line of a lock."""
        return f"{self.name}=={self.version} --hash={self.digest}  # {self.filename}"


@dataclass(frozen=True, slots=True, order=True)
class DebPin:
    """One .deb of Debian's `bookworm/main`."""

    path: str
    """Path below the mirror, for instance `pool/main/z/zlib/zlib1g_1_amd64.deb`."""
    digest: str
    """`sha256:<64 hex>` of the file, as apt's index has it."""

    @property
    def filename(self) -> str:
        """Its name on the mirror."""
        return self.path.rsplit("/", 1)[1]

    @property
    def package(self) -> str:
        """Name of the Debian package."""
        return self.filename.split("_", 1)[0]

    def line(self) -> str:
        """The pin as its line of a lock."""
        return f"{self.path} {self.digest}"


@dataclass(frozen=True, slots=True)
class Group:
    """A requirement list that becomes one lock."""

    requirements: tuple[str, ...]
    """Resolved with their dependencies."""
    alone: tuple[str, ...] = ()
    """Taken without their dependencies."""
    sources: tuple[str, ...] = ()
    """Taken as source archives, without dependencies; never built, only read from."""
    buildable: bool = False
    """May a source archive stand in where there is no wheel? Only for what pip installs."""


def parse(text: str, *, where: str = "") -> tuple[Pin, ...]:
    """Read a Python lock. Raises LockError for any line that `render` would not have written."""
    rows = _rows(text, _LINE, "pin", where, "helix lock")
    return ordered([Pin(row["name"], row["version"], row["digest"], row["file"]) for row in rows], where=where)


def parse_debs(text: str, *, where: str = "") -> tuple[DebPin, ...]:
    """Read a .deb lock. Raises LockError."""
    rows = _rows(text, _DEB_LINE, ".deb", where, "helix lock --debs")
    return tuple(DebPin(row["path"], row["digest"]) for row in rows)


def _rows(text: str, form: re.Pattern[str], what: str, where: str, fix: str) -> Iterator[re.Match[str]]:
    """What the lines say that are neither empty nor comments. Raises LockError for one of another form."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = form.fullmatch(line)
        if match is None:
            raise LockError(f"line {number} is not a {what}: {line!r}", where=where, fix=fix)
        yield match


def render(pins: Iterable[Pin | DebPin], *, title: str) -> str:
    """The text of a lock: a comment that says what it is, then the pins, sorted."""
    return render_lines((pin.line() for pin in sorted(pins)), title=title)


def render_lines(lines: Iterable[str], *, title: str) -> str:
    """The text of a lock, from its lines."""
    return "\n".join([f"# {title} Written by `helix lock`; do not edit.", *lines]) + "\n"


def read(path: Path) -> tuple[Pin, ...]:
    """Read a Python lock file. Raises LockError when it is absent or malformed."""
    return parse(_text(path, "helix lock"), where=str(path))


def read_debs(path: Path) -> tuple[DebPin, ...]:
    """Read a .deb lock file. Raises LockError when it is absent or malformed."""
    return parse_debs(_text(path, "helix lock --debs"), where=str(path))


def groups(model: Path) -> Mapping[str, Group]:
    """The locks that a model folder asks for, by path relative to it.

    They come from the `[dependency-groups]` of its `pyproject.toml`: `serve` and `build` are
    resolved; of `build-alone` the dependencies are left out; `data` and `data-sources` name
    the distributions whose files the data stage reads (the latter as source archives).
    Raises LockError.
    """
    path = model / "pyproject.toml"
    try:
        table: Any = tomllib.loads(_text(path, f"helix doctor # {path.name} is missing"))["dependency-groups"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise LockError(f"no readable [dependency-groups]: {error}", where=str(path)) from error

    def listed(name: str) -> tuple[str, ...]:
        found = table.get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise LockError(f"dependency group {name!r} is not a list of requirements", where=str(path))
        return tuple(found)

    locks = {
        "environment/serve.lock": Group(listed("serve")),
        "environment/build.lock": Group(listed("build"), alone=listed("build-alone")),
        "data/upstream.lock": Group((), alone=listed("data"), sources=listed("data-sources")),
    }
    return {name: group for name, group in locks.items() if group != Group(())}


def requirements(text: str) -> tuple[str, ...]:
    """The entries of a list with `#` comments, for instance `debs.in`."""
    return tuple(entry for line in text.splitlines() if (entry := line.split("#", 1)[0].strip()))


def ordered(pins: Sequence[Pin], *, where: str | None = None) -> tuple[Pin, ...]:
    """The pins, if they are sorted by name and each name stands once. Raises LockError."""
    names = [pin.name for pin in pins]
    if names != sorted(set(names)):
        raise LockError("the pins are not sorted by name, or one name stands twice", where=where, fix="helix lock")
    return tuple(pins)


def _text(path: Path, fix: str) -> str:
    with explaining(LockError, "cannot read the file", where=str(path), fix=fix):
        return path.read_text()
