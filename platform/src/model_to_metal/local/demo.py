"""The story of `make demo`: one commit, all the way to a prediction that is traced and replayed.

Takes the checkout's last commit; works in a clone under `.helix/demo`, so no branch of the
user's is touched, and shares downloads, Nix store, records and log with the checkout. Gives
a `Story`; `commands.demo` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import view
from helix_lineage.directory.source import FolderSource
from helix_lineage.errors import ReplayError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import Trace, trace
from helix_lineage.paths import State
from helix_lineage.records.chain import ImageBuild
from helix_lineage.records.store import RecordStore
from helix_lineage.replay import ReplayExecutor, ReplayPlanner, Verdict
from helix_lineage.replay.verdict import NOT_REPLAYED
from helix_lineage.shard.reader import Log
from model_to_metal.errors import ImageError
from model_to_metal.hermetic import fetch, image
from model_to_metal.host import process, tools
from model_to_metal.host.checkout import Checkout
from model_to_metal.local import container
from model_to_metal.local.workspace import Workspace
from model_to_metal.pipeline.engine import Outcome, ProgressListener
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import attest, keys
from model_to_metal.supply_chain.provenance import RELEASE
from model_to_metal.supply_chain.verify import VerificationReport, verify_image

MODEL = "proteinmpnn"
STRUCTURE = "golden/1ubi.pdb"
DESIGNS, SEED = 3, 7

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoRebuild:
    """That the image was built again from an empty store, to the same digest."""

    steps: int
    """Derivations that were run again."""
    seconds: float
    time: str
    """When: RFC 3339, UTC."""
    rebuilt: bool
    """Whether that was now, or is recorded."""


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """What the client got for one request."""

    request: str
    predictions: list[dict[str, Any]]
    """One a design: `prediction_id`, `sequence`, `recovery`, …"""


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the demo has to tell."""

    commit: str
    outcomes: dict[str, Outcome]
    rebuild: DemoRebuild
    attested: VerificationReport
    server: container.ServedImage
    answer: DemoAnswer
    traced: Trace
    replayed: list[Verdict]

    @property
    def passed(self) -> bool:
        """Did every check hold?"""
        return self.attested.passed and all(verdict.same for verdict in self.replayed) and self.traced.problem is None

    def to_json(self) -> dict[str, Any]:
        """The story as `--json` prints it."""
        return {
            "commit": self.commit,
            "image": self.server.image,
            "stages": [outcome.to_json() for outcome in self.outcomes.values()],
            "rebuilt": {
                "equal": True,
                "steps": self.rebuild.steps,
                "time": self.rebuild.time,
                "rebuilt": self.rebuild.rebuilt,
            },
            "attested": self.attested.to_json(),
            "predictions": self.answer.predictions,
            "trace": self.traced.to_json(),
            "replay": [verdict.to_json() for verdict in self.replayed],
            "passed": self.passed,
        }


def prepare(checkout: Checkout, state: State, report: Progress) -> Checkout:
    """Tools, keys, downloads, and the clone at the checkout's commit."""
    for name in tools.NEEDED:
        tools.ensure(name, state, report)
    keys.make(state)
    clone = clone_at(checkout, state.demo, checkout.commit())
    told = ""

    def progress(what: str, _done: int, _total: int) -> None:
        nonlocal told
        if (word := what.split(" ", 1)[0]) != told:
            told = word
            report(f"{what} …")

    fetched = fetch.fetch(clone.root, state, progress=progress)
    report(f"{fetched.locked} locked files: {fetched.downloaded} downloaded, {fetched.added} added to the Nix store")
    return clone


def clone_at(checkout: Checkout, folder: Path, commit: str) -> Checkout:
    """A clone of the checkout in `folder`, at `commit`, with nothing else in it."""
    if not (folder / ".git").is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        process.run(["git", "clone", "--quiet", "--no-checkout", checkout.root, folder])
    process.run(["git", "fetch", "--quiet", checkout.root, "HEAD"], cwd=folder)
    process.run(["git", "checkout", "--quiet", "--force", "--detach", commit], cwd=folder)
    process.run(["git", "clean", "--force", "-d", "-x", "--quiet"], cwd=folder)
    return Checkout(folder)


def release(clone: Checkout, state: State, listener: ProgressListener, report: Progress) -> dict[str, Outcome]:
    """Every stage of the release workflow, made or found."""
    return Workspace(clone, state).engine(listener, report).run(MODEL)


def rebuild(clone: Checkout, state: State, build: ImageBuild, report: Progress) -> DemoRebuild:
    """Build the image again from an empty store, unless that is recorded. Raises ImageError when it differs."""
    store = RecordStore(state.store)
    for seen in store.observations(build.digest):
        if seen.get("kind") == "rebuilt":
            return DemoRebuild(int(seen["steps"]), float(seen["seconds"]), str(seen["time"]), rebuilt=False)
    report("building the image again, from an empty store")
    built, again = image.build_twice(MODEL, clone.root, state, report=report)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if built.manifest != build.parameters["image"]:
        raise ImageError("the image that was built again is another one", where=built.manifest)
    found = {"kind": "rebuilt", "steps": again.steps, "seconds": round(again.seconds, 1), "time": now}
    store.observe(build.digest, found)
    return DemoRebuild(again.steps, again.seconds, now, rebuilt=True)


def check(state: State, digest: str) -> VerificationReport:
    """Every attestation of the image, checked offline."""
    cosign = tools.ensure("cosign", state)
    with artifacts.serving(state) as address, Client(address) as client:
        named = Image(address, artifacts.repository(MODEL), digest)
        return verify_image(client, named, Trust.load(state.trust), cosign, at=datetime.now(UTC))


def design(server: container.ServedImage, structure: Path) -> DemoAnswer:
    """Sequences for a backbone, asked for by BentoML's own client."""
    import bentoml  # noqa: PLC0415  # takes two seconds, which only the demo should spend

    with bentoml.SyncHTTPClient(server.http) as client:
        answer = client.design(structure=structure.read_text(), num_sequences=DESIGNS, seed=SEED)
    return DemoAnswer(answer["request_id"], answer["predictions"])


def sources(state: State) -> ReleaseSources:
    """Where releases are found: the signed bundle, and the records of this checkout."""
    bundle = state.releases / MODEL / attest.FILES[RELEASE]
    return ReleaseSources(bundles=(bundle,), store=RecordStore(state.store), trust=Trust.load(state.trust))


def trace_back(state: State, prediction: str) -> Trace:
    """What made the prediction."""
    root = Trust.load(state.trust)
    # The directory's folder, not its answers: what it holds is checked against its signed checkpoint all the same.
    known = view.load(FolderSource(state.directory), root, datetime.now(UTC))
    return trace(Log(state.log), prediction, sources(state), known)


def replay(state: State, predictions: list[str]) -> list[Verdict]:
    """Make the predictions again, in fresh processes in the image's own files. Raises ReplayError when that fails."""
    planner = ReplayPlanner(Log(state.log), sources(state))
    plans = [planner.plan(name) for name in predictions]
    with artifacts.serving(state) as address:
        verdicts = ReplayExecutor(state.images, address).replay(plans)
    for verdict in verdicts:
        if verdict.outcome == NOT_REPLAYED:
            raise ReplayError(verdict.differences[-1].detail, where=verdict.id)
    return verdicts
