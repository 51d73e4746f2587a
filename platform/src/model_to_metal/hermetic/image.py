"""The image of a model: built, and built again to see that the same bytes come out.

Takes a checkout; gives an OCI layout and its manifest's digest. Building again starts from an
empty store, runs every step anew (Nix's own `--rebuild` runs the last one only), later and with
another number of cores; where the results part, the first file that differs is named.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.paths import State
from model_to_metal.errors import ImageDiffers, ImageError
from model_to_metal.hermetic import diff, nix
from model_to_metal.hermetic.layout import manifest_digest
from model_to_metal.hermetic.nix import Derivation, NixStore, Progress, silent

_BUILDING = re.compile(r"building '(/nix/store/\S+\.drv)'")
_LATER_S = 2.0  # a clock of whole seconds must show another time
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image on this machine."""

    layout: Path
    """Its OCI layout."""
    manifest: str
    """Digest of its manifest."""


@dataclass(frozen=True, slots=True)
class SecondBuild:
    """The result of building something again from an empty store."""

    output: str
    """Store path of what was made."""
    steps: int
    """Derivations that were run again."""
    seconds: float
    """How long the second build took."""
    cores: tuple[int, int]
    """Cores of the machine, and those that the second build saw."""
    unstable: tuple[str, ...]
    """Steps whose result differed, although what was asked for did not."""


def build(model: str, checkout: Path, state: State, *, report: Progress = silent) -> BuiltImage:
    """Build the image of `model`. Raises NixError or ImageError."""
    layout = nix.build(f"{model}-image", checkout, state, report=report)
    return BuiltImage(layout, manifest_digest(layout))


def build_twice(
    model: str, checkout: Path, state: State, *, report: Progress = silent
) -> tuple[BuiltImage, SecondBuild]:
    """Build the image, then again from an empty store; raises ImageDiffers when the digests differ."""
    store = NixStore.of(state)
    with nix.sources(checkout, state.root / "scratch") as flake:
        reports = state.reports / f"twice-{model}"
        again = make_again(f"{flake}#{model}-image", store, NixStore(state.nix_second), reports=reports, report=report)
    layout = store.real(again.output)
    return BuiltImage(layout, manifest_digest(layout)), again


def make_again(
    installable: str, first: NixStore, second: NixStore, *, reports: Path | None = None, report: Progress = silent
) -> SecondBuild:
    """Make `FLAKE#ATTRIBUTE` in both stores and compare.

    Only locked inputs are copied to the second store; it is emptied first, and removed when all is
    well. Raises ImageError when a step was not run again, ImageDiffers when the results differ (the
    second store is then left, to look at, and diffoscope's report written to `reports`).
    """
    with _alone(second, report):
        return _made_again(installable, first, second, reports, report)


@contextmanager
def made_alone(
    installable: str, first: NixStore, second: NixStore, *, report: Progress = silent
) -> Iterator[tuple[Path, int, float]]:
    """Make `FLAKE#ATTRIBUTE` in the second store only, from nothing but its locked inputs, as the first one has them.

    Gives where its output lies, as long as the context lasts, the steps that ran and the seconds they took.
    Raises ImageError when a locked input is absent or a step did not run.
    """
    with _alone(second, report):
        steps = NixStore(first.root, offline=second.offline).derivations(installable)
        locked = [step.output for step in steps.values() if step.fixed]
        if absent := sorted(set(locked) - first.valid(locked)):
            names = ", ".join(path.split("-", 1)[1] for path in absent[:5])
            raise ImageError(
                f"{len(absent)} locked inputs are not in the store: {names}", where=str(first.root),
                fix="helix fetch, in a checkout of that commit",
            )  # fmt: skip
        _empty_but_for_inputs(first, second, steps, report)
        output, ran, seconds = _build_all(second, installable, steps, report)
        yield second.real(output), ran, seconds
        second.remove()


def _empty_but_for_inputs(first: NixStore, second: NixStore, steps: Mapping[str, Derivation], report: Progress) -> None:
    second.remove()
    _check_room(first, steps, second)
    report("copying the locked inputs to an empty store")
    first.copy([step.output for step in steps.values() if step.fixed], second)


def _build_all(
    second: NixStore, installable: str, steps: Mapping[str, Derivation], report: Progress, *, cores: int | None = None
) -> tuple[str, int, float]:
    """Build every step; gives the output, how many steps ran, and the seconds. Raises ImageError when one did not."""
    ran: set[str] = set()

    def follow(line: str) -> None:
        ran.update(_BUILDING.findall(line))
        report(line)

    started = time.monotonic()
    output = second.build(installable, cores=cores, report=follow)
    seconds = time.monotonic() - started
    if left := sorted(step.name for step in steps.values() if not step.fixed and step.path not in ran):
        raise ImageError(f"not built again: {', '.join(left)}", where=str(second.root))
    return output, len(ran), seconds


def _made_again(
    installable: str, first: NixStore, second: NixStore, reports: Path | None, report: Progress
) -> SecondBuild:
    output = first.build(installable, report=report)
    done = time.monotonic()
    steps = first.derivations(installable)
    _empty_but_for_inputs(first, second, steps, report)
    time.sleep(max(0.0, done + _LATER_S - time.monotonic()))
    machine = len(os.sched_getaffinity(0))
    cores = machine - 1 or 2
    again, ran, seconds = _build_all(second, installable, steps, report, cores=cores)
    if again != output:
        raise ImageError("the second build was asked for something else", where=installable)
    unstable = _differing(first, second, steps)
    if any(step.output == output for step in unstable):
        raise _differs(first, second, output, unstable[0], reports)
    second.remove()
    return SecondBuild(output, ran, seconds, (machine, cores), tuple(step.name for step in unstable))


def first_difference(one: Path, other: Path) -> str | None:
    """The first path, in sorted order, at which two folders (or files) differ; None when they are the same.

    Content, kind, link target and the executable bit count; owners and times do not.
    """
    left, right = dict(_entries(one)), dict(_entries(other))
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right or not _same(left[name], right[name]):
            return name
    return None


@contextmanager
def _alone(store: NixStore, report: Progress) -> Iterator[None]:
    """Hold the store for this process: another one would empty it in the middle of a build."""
    store.root.parent.mkdir(parents=True, exist_ok=True)
    with store.root.with_name(f"{store.root.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another second build to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _differing(first: NixStore, second: NixStore, steps: Mapping[str, Derivation]) -> list[Derivation]:
    """Steps whose results are not the same in both stores, each after those that it needs."""
    made = [step for step in steps.values() if not step.fixed]
    outputs = [step.output for step in made]
    there, here = first.archives(outputs), second.archives(outputs)
    return [step for step in made if there[step.output][0] != here[step.output][0]]


def _differs(first: NixStore, second: NixStore, output: str, cause: Derivation, reports: Path | None) -> ImageDiffers:
    pair = first.real(cause.output), second.real(cause.output)
    file = first_difference(*pair)
    text = f"built again, {output.split('-', 1)[1]} is not the same: the first difference is {file} of {cause.name}"
    layouts = first.real(output), second.real(output)
    if all((layout / "oci-layout").is_file() for layout in layouts):
        digests = [manifest_digest(layout) for layout in layouts]
        text += f" (manifests {digests[0]} and {digests[1]})"
    if reports is not None:
        told = diff.report(*pair, reports)
        text += f"\n{told.head}"
        text += f"\nthe whole report: {told.folder}" if told.folder else ""
    return ImageDiffers(text, where=str(second.root))


def _check_room(first: NixStore, steps: Mapping[str, Derivation], second: NixStore) -> None:
    """Refuse before the disk is full rather than after."""
    paths = first.valid(step.output for step in steps.values())
    needed = sum(size for _, size in first.archives(paths).values())
    second.root.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(second.root.parent).free
    if free < needed * 1.1:
        what = f"a second build needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise ImageError(what, where=str(second.root))


def _entries(root: Path) -> Iterator[tuple[str, Path]]:
    if root.is_symlink() or not root.is_dir():
        yield "", root
        return
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            yield path.relative_to(root).as_posix(), path


def _same(one: Path, other: Path) -> bool:
    left, right = one.lstat(), other.lstat()
    if stat.S_IFMT(left.st_mode) != stat.S_IFMT(right.st_mode):
        return False
    if stat.S_ISLNK(left.st_mode):
        return one.readlink() == other.readlink()
    if not stat.S_ISREG(left.st_mode):
        return True
    if left.st_size != right.st_size or (left.st_mode ^ right.st_mode) & 0o111:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while chunk := a.read(_CHUNK):
            if chunk != b.read(_CHUNK):
                return False
    return True
