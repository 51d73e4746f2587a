"""What a cluster is built from: `platform/cluster/programs.toml`, read and keyed.

Each entry is a folder beside that file with a `go.mod` and `go.sum`. Its key is the digest of
everything that we choose about the build, so a built folder of that name is what is declared.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helix_lineage.formats.canonical import digest_bytes, dumps
from model_to_metal.cluster.layout import SOURCES

_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-v")


@dataclass(frozen=True, slots=True)
class Copied:
    """A dependency that is built in a copy of its own source, because its archive lacks files."""

    module: str
    """Import path of the module; its version is that of our `go.mod`."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Files that are symbolic links in its repository, which archives of modules leave out: name → target."""
    writes: Mapping[str, str] = field(default_factory=dict)
    """Files that its own build generates: name → what stands in for it."""


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of ours, and the programs that are built from it."""

    name: str
    programs: Mapping[str, str]
    """Name → import path of the main package."""
    links: Mapping[str, tuple[str, ...]]
    """Program → further names that it goes by."""
    assets: Mapping[str, str]
    """Name → `MODULE!PATH` of a file or folder that is used as it is."""
    copied: Copied | None
    variables: Mapping[str, str]
    """What the linker sets: version numbers."""
    tags: tuple[str, ...]
    cgo: bool
    go: str
    """Oldest Go that builds it."""
    key: str
    """Digest of go.mod, go.sum, our own Go files and the choices above."""

    @property
    def source(self) -> Path:
        """The folder with its `go.mod`."""
        return SOURCES / self.name

    @property
    def folder(self) -> str:
        """The name of the folder that it is built into."""
        return f"{self.name}-{self.key.removeprefix('sha256:')[:16]}"

    def flags(self) -> list[str]:
        """The flags of `go build`."""
        link = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in sorted(self.variables.items()))])
        tags = [f"-tags={','.join(self.tags)}"] if self.tags else []
        return [*_FLAGS, f"-ldflags={link}", *tags]


def declared(sources: Path = SOURCES) -> list[Module]:
    """Every module, in the order in which they are built."""
    rows = tomllib.loads((sources / "programs.toml").read_text())
    return [_module(sources, name, row) for name, row in rows.items()]


def _module(sources: Path, name: str, row: Mapping[str, Any]) -> Module:
    values: dict[str, Any] = {"links": {}, "assets": {}, "set": {}, "tags": [], "cgo": False, "copied": None, **row}
    files = sorted(path for path in (sources / name).rglob("*") if path.suffix in (".go", ".mod", ".sum"))
    contents = {path.relative_to(sources).as_posix(): digest_bytes(path.read_bytes()) for path in files}
    copied = Copied(**values["copied"]) if values["copied"] else None
    return Module(
        name=name,
        programs=dict(values["programs"]),
        links={program: tuple(names) for program, names in dict(values["links"]).items()},
        assets=dict(values["assets"]),
        copied=copied,
        variables=dict(values["set"]),
        tags=tuple(values["tags"]),
        cgo=bool(values["cgo"]),
        go=_go((sources / name / "go.mod").read_text()),
        key=digest_bytes(dumps({"row": dict(row), "files": contents, "flags": list(_FLAGS)})),
    )


def _go(text: str) -> str:
    found = re.search(r"^go (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError("a go.mod without a `go` line")
    return found[1]
