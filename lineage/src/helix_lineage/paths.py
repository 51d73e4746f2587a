"""The state of a checkout, under `.helix/`: the one module that knows these paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.errors import LineageError


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

    @property
    def store(self) -> Path:
        """Content-addressed blobs, records, observations (`helix_lineage.records.store`)."""
        return self.root / "store"

    @property
    def cache(self) -> Path:
        """Stage cache: key → record digest."""
        return self.root / "cache"

    @property
    def log(self) -> Path:
        """Shards, one folder each."""
        return self.root / "log"

    @property
    def directory(self) -> Path:
        """The log of the directory that runs on this machine."""
        return self.root / "directory"

    @property
    def keys(self) -> Path:
        """Development keys, mode 0600, and `trust.json`."""
        return self.root / "keys"

    @property
    def trust(self) -> Path:
        """The trust root that verifiers use by default."""
        return self.keys / "trust.json"

    @property
    def registry(self) -> Path:
        """OCI layouts that the local registry serves."""
        return self.root / "registry"

    @property
    def downloads(self) -> Path:
        """Files that `helix fetch` brought in: wheels/, debs/, upstream/."""
        return self.root / "downloads"

    @property
    def nix(self) -> Path:
        """The chroot Nix store (`nix --store`)."""
        return self.root / "nix"

    @property
    def nix_second(self) -> Path:
        """The second, emptied store of `helix build --twice`."""
        return self.root / "nix-second"

    @property
    def tools(self) -> Path:
        """Go tools that the project built: cosign, olareg, regctl."""
        return self.root / "tools"

    @property
    def releases(self) -> Path:
        """Signed releases as files: `<model>/release.sigstore.json`, `<model>/<commit>.release…` and friends."""
        return self.root / "releases"

    @property
    def images(self) -> Path:
        """Unpacked images, one folder per manifest digest."""
        return self.root / "images"

    @property
    def reports(self) -> Path:
        """What diffoscope found where two builds differ, one folder a comparison."""
        return self.root / "reports"

    @property
    def demo(self) -> Path:
        """The clone that `make demo` works in."""
        return self.root / "demo"
