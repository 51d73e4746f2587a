"""A second model with the same torch: what its environments add to the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from model_to_metal.hermetic import fetch, nix
from model_to_metal.hermetic.nix import NixStore
from tests.end_to_end.conftest import MODEL, Released

LIMIT_BYTES = 100_000_000
"""Copied, its environments would be 5 GB."""


def files(*folders: Path) -> dict[int, int]:
    """Inode → size of all files below the folders; links are not followed."""
    found = [Path(folder, name).lstat() for top in folders for folder, _, names in os.walk(top) for name in names]
    return {status.st_ino: status.st_size for status in found}


def test_a_second_model_with_the_same_torch_adds_less_than_100_mb(released: Released, tmp_path: Path) -> None:
    with nix.sources(released.checkout, tmp_path / "scratch") as flake:
        root = Path(shutil.copytree(flake.removeprefix("path:"), tmp_path / "two", symlinks=True))
    shutil.copytree(root / "models" / MODEL, root / "models" / "second", symlinks=True)
    for name in ("build", "serve"):  # another lock, or its environments would be those of the first
        lock = root / f"models/second/environment/{name}.lock"
        lines = [line for line in lock.read_text().splitlines() if not line.startswith(("sympy=", "psutil="))]
        lock.write_text("\n".join([*lines, ""]))
    fetch.fetch(root, released.state)
    store = NixStore.of(released.state)

    def built(model: str) -> list[Path]:
        names = [f"{model}-build-env", f"{model}-serve-env"]
        return [store.real(store.build(f"path:{root}#{name}")) for name in names]

    first, second = built(MODEL), built("second")
    assert not set(first) & set(second)
    shared = files(*first)
    added = {inode: size for inode, size in files(*second).items() if inode not in shared}
    assert sum(added.values()) < LIMIT_BYTES
