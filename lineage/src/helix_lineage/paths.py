"""The state of a checkout, under `.helix/`: the one module that knows these paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from helix_lineage.errors import LineageError

RELEASE_FILE = "release.sigstore.json"
"""A signed release, wherever it is kept as a file."""
PROMOTION_FILE = "promotion.sigstore.json"


class Rooted(Protocol):
    """What has a root folder."""

    @property
    def root(self) -> Path:
        """The folder."""


class Below:
    """An attribute that is the path of that name below the object's root.

    >>> State(Path("/x/.helix")).store.as_posix()
    '/x/.helix/store'
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, of: Rooted, kind: type[Rooted]) -> Path:
        return of.root / self._name


@dataclass(frozen=True, slots=True)
class State:
    """The folder `.helix/` of a checkout (or the one that `HELIX_STATE` names)."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> State:
        """The state of the checkout that `start` (default: the working folder) lies in.

        Raises LineageError outside a checkout when `HELIX_STATE` is not set either.
        """
        if named := os.environ.get("HELIX_STATE"):
            return cls(Path(named).resolve())
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "flake.nix").is_file() and (folder / "models").is_dir():
                return cls(folder / ".helix")
        raise LineageError(
            "not inside a Helix checkout", where=str(here), fix="cd into the checkout, or set HELIX_STATE"
        )

    @property
    def checkout(self) -> Path:
        """The root of the Git checkout."""
        return self.root.parent

    store = Below("store")
    """Content-addressed blobs, records, observations (`helix_lineage.records.store`)."""
    cache = Below("cache")
    """Stage cache: key → record digest."""
    log = Below("log")
    """Shards, one folder each."""
    directory = Below("directory")
    """The log of the directory that runs on this machine."""
    keys = Below("keys")
    """Development keys, mode 0600, and `trust.json`."""
    trust = Below("keys/trust.json")
    """The trust root that verifiers use by default."""
    registry = Below("registry")
    """OCI layouts that the local registry serves."""
    downloads = Below("downloads")
    """Files that `helix fetch` brought in: wheels/, debs/, upstream/."""
    nix = Below("nix")
    """The chroot Nix store (`nix --store`)."""
    nix_second = Below("nix-second")
    """The second, emptied store of `helix build --twice`."""
    tools = Below("tools")
    """Go tools that the project built: cosign, olareg, regctl."""
    releases = Below("releases")
    """Signed releases as files: `<model>/release.sigstore.json`, `<model>/<commit>.release…` and friends."""
    images = Below("images")
    """Unpacked images, one folder per manifest digest."""
    reports = Below("reports")
    """What diffoscope found where two builds differ, one folder a comparison."""
    demo = Below("demo")
    """The clone that `make demo` works in."""
