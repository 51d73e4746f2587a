"""What differs between two builds, told by diffoscope.

Takes two folders, or two OCI layouts (then the manifests, configurations and those layers that
differ); gives a report as text, JSON and HTML. Without diffoscope there is a sentence instead.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from helix_lineage.formats.canonical import Json
from model_to_metal.errors import ImageError, PipelineError
from model_to_metal.hermetic.layout import manifest_digest
from model_to_metal.host import process

TOOL = "diffoscope"
MISSING = f"{TOOL} is not installed, so nothing more is said about what differs; run: make setup-tests"
_TIMEOUT_S = 900
_SAYS_DIFFERENT = 1  # diffoscope's exit status
_HEAD = 40  # lines of the report that are worth a screen
_SUFFIXES = {"gzip": ".tar.gz", "tar": ".tar", "zstd": ".tar.zst"}


@dataclass(frozen=True, slots=True)
class DifferenceReport:
    """What diffoscope found."""

    folder: Path | None
    """Holds report.txt, report.json, report.html; None without diffoscope."""
    head: str
    """The first lines, or why there are none."""

    def to_json(self) -> dict[str, Json]:
        """As `--json` prints it."""
        names = ("txt", "json", "html") if self.folder else ()
        return {"head": self.head, "files": [f"{self.folder}/report.{name}" for name in names]}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of two images."""

    number: int
    one: str | None
    """Its digest in the first image."""
    other: str | None

    @property
    def equal(self) -> bool:
        """Is it the same in both?"""
        return self.one == self.other


def layers(one: Path, other: Path) -> list[Layer]:
    """The layers of two OCI layouts, side by side."""
    found = [[str(layer["digest"]) for layer in _manifest(layout)["layers"]] for layout in (one, other)]
    return [Layer(number, *pair) for number, pair in enumerate(zip_longest(*found))]


def report(one: Path, other: Path, folder: Path, names: tuple[str, str] = ("first", "second")) -> DifferenceReport:
    """Have diffoscope compare two folders or OCI layouts; writes into `folder`, which is emptied first.

    Where diffoscope is absent or fails, the report is the sentence that says so.
    """
    if shutil.which(TOOL) is None:
        return DifferenceReport(None, MISSING)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compared-") as scratch:
        pair = [Path(scratch, name) for name in names]
        if all((path / "oci-layout").is_file() for path in (one, other)):
            _lay_out(one, other, pair)
        else:
            for link, path in zip(pair, (one, other), strict=True):
                link.symlink_to(path)
        words = [
            f"--{kind}={folder}/report.{end}" for kind, end in (("text", "txt"), ("json", "json"), ("html", "html"))
        ]
        # Owners and times of the folders on this disk say nothing about what was built.
        words += ["--exclude-directory-metadata=recursive", "--no-progress", f"--timeout={_TIMEOUT_S}"]
        said = _run([*words, *(f"{path}/" for path in pair)], Path(scratch))
        scratch_prefix = f"{scratch}/"
    text = folder / "report.txt"
    if said is not None or not text.is_file():
        # That they differ is known already; the missing report must not hide it.
        return DifferenceReport(None, f"{TOOL} gave no report: {said or 'it sees no difference'}")
    lines = text.read_text(encoding="utf-8", errors="replace").replace(scratch_prefix, "").splitlines()
    more = f"\n… and {len(lines) - _HEAD} lines more: {text}" if len(lines) > _HEAD else ""
    return DifferenceReport(folder, "\n".join(lines[:_HEAD]) + more)


def _run(words: list[str], folder: Path) -> str | None:
    """Run diffoscope; gives what went wrong, or None when it found differences and told them."""
    try:
        # Its Python is the machine's, not ours.
        env = {"PYTHONPATH": None, "PYTHONHOME": None}
        done = process.attempt([TOOL, *words], env=env, cwd=folder, timeout_s=2 * _TIMEOUT_S)
    except PipelineError as error:
        return str(error)
    if done.returncode == _SAYS_DIFFERENT:
        return None
    said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
    return f"status {done.returncode}: {said or 'it sees no difference'}"


def _lay_out(one: Path, other: Path, folders: list[Path]) -> None:
    """What differs of two images, under names that tell what it is."""
    for folder in folders:
        folder.mkdir()
    manifests = [_manifest(layout) for layout in (one, other)]
    for layout, folder, manifest in zip((one, other), folders, manifests, strict=True):
        (folder / "manifest.json").write_bytes(_blob(layout, manifest_digest(layout)).read_bytes())
        (folder / "config.json").write_bytes(_blob(layout, manifest["config"]["digest"]).read_bytes())
    for layer in layers(one, other):
        if layer.equal:
            continue
        for layout, folder, manifest in zip((one, other), folders, manifests, strict=True):
            if layer.number < len(manifest["layers"]):
                described = manifest["layers"][layer.number]
                _link(_blob(layout, described["digest"]), folder / f"layer-{layer.number:03}{_suffix(described)}")


def _suffix(layer: Mapping[str, Any]) -> str:
    return _SUFFIXES.get(str(layer["mediaType"]).rpartition("+")[2], ".tar")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copyfile(source, target)


def _manifest(layout: Path) -> dict[str, Any]:
    found = json.loads(_blob(layout, manifest_digest(layout)).read_bytes())
    if not isinstance(found, dict):
        raise ImageError("the layout's manifest is not an object", where=str(layout))
    return found


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
