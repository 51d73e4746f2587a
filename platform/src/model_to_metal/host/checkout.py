"""The Git checkout that the pipeline works on.

Takes a folder inside it; gives its root, its commit, whether it is clean, and its models.
State (`helix_lineage.paths.State`) may lie elsewhere: the demo's clone shares its parent's.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.errors import reason
from model_to_metal.errors import CheckoutError, ContractError
from model_to_metal.host import process


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout of the repository."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Checkout:
        """The checkout that `start` (default: the working folder) lies in. Raises CheckoutError."""
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "flake.nix").is_file() and (folder / "models").is_dir():
                return cls(folder)
        raise CheckoutError("not inside a Helix checkout", where=str(here), fix="cd into the checkout")

    @property
    def models(self) -> list[str]:
        """The models' names: the folders of `models/` with a `model.toml`."""
        return sorted(path.parent.name for path in (self.root / "models").glob("*/model.toml"))

    def model(self, name: str) -> Path:
        """The folder of the model `name`. Raises CheckoutError when there is none."""
        folder = self.root / "models" / name
        if name not in self.models:
            known = ", ".join(self.models) or "none"
            raise CheckoutError(f"no model is called {name!r}; there are: {known}", where=str(folder / "model.toml"))
        return folder

    def contract(self, name: str) -> dict[str, Any]:
        """`model.toml` of the model, parsed. Raises ContractError."""
        path = self.model(name) / "model.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ContractError(f"model.toml cannot be read: {reason(error)}", where=str(path)) from error

    def commit(self) -> str:
        """The commit id (40 hex) of HEAD. Raises CheckoutError before the first commit."""
        done = process.attempt(["git", "rev-parse", "--verify", "--quiet", "HEAD^{commit}"], cwd=self.root)
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip()
            raise CheckoutError(complaint or "the checkout has no commit yet", where=str(self.root), fix="git commit")
        return done.stdout.decode().strip()

    def resolve(self, name: str) -> str:
        """The commit id (40 hex) that `name` means to Git. Raises CheckoutError."""
        argv = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
        done = process.attempt(argv, cwd=self.root)
        if done.returncode:
            raise CheckoutError(f"no commit is called {name!r} here", where=str(self.root), fix="git fetch --all")
        return done.stdout.decode().strip()

    def changes(self) -> list[str]:
        """Files that differ from HEAD or are neither tracked nor ignored; empty when the tree is clean."""
        out = process.run(["git", "status", "--porcelain=v1", "-z"], cwd=self.root)
        return [entry[3:] for entry in os.fsdecode(out).split("\0") if entry]

    def files(self, folder: str) -> list[str]:
        """Paths (relative to the root, sorted) under `folder` that Git tracks or would track, links to nothing too."""
        argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder]
        listed = os.fsdecode(process.run(argv, cwd=self.root)).split("\0")
        # A tracked file that was deleted in the working tree is still listed.
        return sorted({name for name in listed if name and os.path.lexists(self.root / name)})
