"""Make a released image again, from its commit and the locked inputs alone, and compare.

Takes a commit that was released here or elsewhere (its signed release says which image that
was); gives a `RebuildResult`. The source is a clean clone of the commit, the build starts from an
empty store that holds locked inputs only, and Nix runs in a network namespace of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from helix_lineage.attestations.release import claimed_release, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.evidence.releases import read_bundle
from helix_lineage.formats.canonical import Json
from helix_lineage.paths import RELEASE_FILE, State
from helix_lineage.replay.images import check_layout
from model_to_metal.errors import AttestError, CheckoutError, ImageError, ToolError
from model_to_metal.hermetic import diff, image, nix
from model_to_metal.hermetic.diff import DifferenceReport, Layer
from model_to_metal.hermetic.layout import manifest_digest
from model_to_metal.hermetic.nix import NixStore, Progress, silent
from model_to_metal.host import process
from model_to_metal.host.checkout import Checkout
from model_to_metal.registry import artifacts

Obtain = Callable[[Path], Path]
"""Puts the released image into a folder, as an OCI layout; gives that."""


@dataclass(frozen=True, slots=True)
class ReleasedImage:
    """What a signed release says."""

    model: str
    commit: str
    image: str
    """Its manifest digest."""


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """The result of building a released image again."""

    asked: ReleasedImage
    rebuilt: str
    """Manifest digest that came out."""
    steps: int
    """Derivations that were run."""
    seconds: float
    layers: tuple[Layer, ...]
    """Side by side; those of an equal image are equal, as its manifest names them by digest."""
    report: DifferenceReport | None

    @property
    def equal(self) -> bool:
        """Is it the same image?"""
        return self.asked.image == self.rebuilt

    def to_json(self) -> dict[str, Json]:
        """As `--json` prints it."""
        return {
            "model": self.asked.model,
            "commit": self.asked.commit,
            "released": self.asked.image,
            "rebuilt": self.rebuilt,
            "equal": self.equal,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "layers": [{"released": layer.one, "rebuilt": layer.other, "equal": layer.equal} for layer in self.layers],
            "report": self.report.to_json() if self.report else None,
        }


def find(commit: str, bundles: Sequence[Path], trust: Trust, at: datetime) -> ReleasedImage:
    """The signed release of the commit among the bundles. Raises CheckoutError, or what does not verify."""
    for path in bundles:
        data = read_bundle(path)
        try:
            claimed = claimed_release(data).parameters["commit"]
        except LineageError as error:
            raise AttestError(f"this is not a release bundle: {error.what}", where=str(path)) from error
        if claimed == commit:
            found = verify_release(data, trust, image=None, at=at).release.parameters
            return ReleasedImage(str(found["model"]), commit, str(found["image"]))
    raise CheckoutError(
        f"no release of commit {commit[:12]} is here", where=", ".join(map(str, bundles)) or "no bundle is here",
        fix=f"helix rebuild {commit[:12]} --release release.sigstore.json",
    )  # fmt: skip


def bundles(checkout: Checkout, state: State) -> list[Path]:
    """The release bundles of this machine, then those that the environments in Git hold."""
    here = sorted(state.releases.glob(f"*/*{RELEASE_FILE}"))
    return here + sorted((checkout.root / "gitops/argocd/environments").glob(f"*/*/{RELEASE_FILE}"))


@contextmanager
def clone(checkout: Checkout, commit: str, state: State) -> Iterator[Checkout]:
    """A clean clone at the commit, for as long as the context lasts."""
    scratch = state.root / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rebuild-", dir=scratch) as name:
        folder = Path(name) / "clone"
        # Its objects stay where they are: a commit that no branch reaches any more can be checked out too.
        process.run(["git", "clone", "--quiet", "--shared", "--no-checkout", checkout.root, folder])
        process.run(["git", "checkout", "--quiet", "--detach", commit], cwd=folder)
        yield Checkout(folder)


def rebuild(
    source: Checkout, asked: ReleasedImage, state: State, obtain: Obtain, *, report: Progress = silent
) -> RebuildResult:
    """Make the image of `source` again and compare it with the one released. Raises NixError or ImageError.

    Args:
        source: a clean clone at the commit that was released.
        obtain: called only when they differ.
    """
    store, second = NixStore.of(state), NixStore(state.nix_second, offline=True)
    with (
        nix.sources(source.root, state.root / "scratch") as flake,
        image.made_alone(f"{flake}#{asked.model}-image", store, second, report=report) as (layout, steps, seconds),
    ):
        rebuilt = manifest_digest(layout)
        if rebuilt == asked.image:
            return RebuildResult(asked, rebuilt, steps, seconds, _same(layout), None)
        report("they differ: comparing")
        with tempfile.TemporaryDirectory(prefix="released-", dir=state.root / "scratch") as folder:
            theirs = obtain(Path(folder))
            side_by_side = tuple(diff.layers(theirs, layout))
            place = state.reports / f"rebuild-{asked.model}-{asked.commit[:12]}"
            differences = diff.report(theirs, layout, place, ("released", "rebuilt"))
        return RebuildResult(asked, rebuilt, steps, seconds, side_by_side, differences)


def from_registry(asked: ReleasedImage, state: State) -> Obtain:
    """Obtains the released image from this checkout's registry, every blob hashed."""
    digest, model = asked.image, asked.model

    def obtain(folder: Path) -> Path:
        layout = folder / "layout"
        with artifacts.serving(state) as address:
            named = f"{artifacts.repository(model)}@{digest}"
            reference = f"docker://{address}/{named}"
            try:
                process.run(
                    ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false",
                     reference, f"oci:{layout}:image"]
                )  # fmt: skip
            except ToolError as error:
                what = f"the released image cannot be copied from the registry: {process.reason(error)}"
                raise ImageError(what, where=reference, fix=f"helix verify {named}", raw=error.raw) from error
        try:
            check_layout(layout, digest)
        except LineageError as error:
            raise ImageError(f"the released image is not whole: {error.what}", where=reference) from error
        return layout

    return obtain


def _same(layout: Path) -> tuple[Layer, ...]:
    return tuple(diff.layers(layout, layout))
