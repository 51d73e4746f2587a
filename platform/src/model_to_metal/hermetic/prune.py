"""Removes from the Nix store what the locks and sources of this checkout no longer reach.

Takes a checkout; keeps every step of every attribute of its flake: derivations, sources, locked
inputs and results. The rest came of older commits, and is made or fetched again when it is asked for.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_to_metal.errors import NixError
from model_to_metal.hermetic import nix
from model_to_metal.hermetic.nix import NixStore, Progress, silent

SYSTEM = "x86_64-linux"
_PATH = re.compile(r"/nix/store/[a-z0-9]{32}-\S+")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be."""

    kept: int
    """Store paths that the checkout reaches, and that are there."""
    removed: tuple[str, ...]
    """Store paths, sorted."""
    size: int
    """Their bytes, as Nix counts them."""
    dry: bool
    """Whether they were only looked for."""


def prune(
    checkout: Path,
    store: NixStore,
    scratch: Path,
    *,
    keep: Iterable[str] = (),
    dry: bool = False,
    report: Progress = silent,
) -> Pruned:
    """Remove everything else from the store. Raises NixError; then nothing was removed.

    Args:
        keep: more store paths to keep, for instance locked files that no attribute takes.
    """
    with nix.sources(checkout, scratch) as flake:
        reached = _reached(store, flake, report)
        if not reached:
            raise NixError("the flake has no attribute, so everything would go", where=str(checkout))
        reached |= store.valid(keep)
        with _rooted(store, reached):
            dead = _paths(store._run(["nix-store", "--gc", "--print-dead"]))
            size = sum(size for _, size in store.archives(dead).values())
            if dead and not dry:
                report(f"removing {len(dead)} store paths")
                store._run(["nix-store", "--gc"])
                dead = [path for path in dead if not store.real(path).exists()]
    return Pruned(len(reached), tuple(sorted(dead)), size, dry)


def _reached(store: NixStore, flake: str, report: Progress) -> set[str]:
    """Every path that some attribute takes and that is in the store."""
    argv = ["nix", "eval", "--json", "--no-write-lock-file", "--apply", "builtins.attrNames"]
    found: set[str] = set()
    for name in json.loads(store._run([*argv, f"{flake}#packages.{SYSTEM}"])):
        report(f"reading {name}")
        for step in store.derivations(f"{flake}#{name}").values():
            found |= {step.path, step.output}
    return store.valid(found)


@contextmanager
def _rooted(store: NixStore, paths: Iterable[str]) -> Iterator[None]:
    """Have Nix take these paths, and what they refer to, for alive."""
    roots = store.root / "nix/var/nix/gcroots"
    roots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=roots, prefix="helix-") as folder:
        for path in paths:
            (Path(folder) / path.rpartition("/")[2]).symlink_to(path)
        yield


def _paths(text: str) -> list[str]:
    return sorted(set(_PATH.findall(text)))
