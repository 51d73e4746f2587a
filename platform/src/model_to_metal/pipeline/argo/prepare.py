"""From a checkout to an order: plans every stage, and sends what its pod will need to the registry.

Runs where the checkout and its Nix store are. Nothing is built here but environments, which depend
on locks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.paths import State
from model_to_metal.errors import CheckoutError
from model_to_metal.hermetic import fetch, nix
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline.argo import archive, pipeline_image, recipe
from model_to_metal.pipeline.argo.exchange import Exchange
from model_to_metal.pipeline.argo.order import Given, Order, StageOrder
from model_to_metal.pipeline.argo.pipeline_image import PipelineImage
from model_to_metal.pipeline.plan import StagePlan, release_plan
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Image
from model_to_metal.stages import interface as stages
from model_to_metal.targets import TARGETS
from model_to_metal.workflows.release import STEPS, Step

REPOSITORY = "helix/pipeline"
"""The repository of pipeline images."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A release that can be submitted."""

    model: str
    order: str
    """Digest of the order."""
    image: Image
    """The pipeline image."""
    steps: tuple[Step, ...]


class Preparation:
    """Collects the blobs of one order."""

    def __init__(self, checkout: Checkout, state: State, model: str, report: Tell) -> None:
        self._checkout, self._state, self._model, self._report = checkout, state, model, report
        self._blobs: dict[str, bytes | Path] = {}

    def run(self, exchange: Exchange, steps: Sequence[Step], commit: str | None, builder: str) -> Prepared:
        """Plan the steps of a release that `builder` signs, compose the image, send both.

        Raises ContractError, NixError, RegistryError and others.
        """
        releasing = any(stages.spec(step.stage).runs is stages.Runs.SIGNER for step in steps)
        names = [step.stage for step in steps]
        plan = release_plan(self._checkout, self._model, names, commit, builder=builder)
        store = nix.NixStore.of(self._state)
        with nix.sources(self._checkout.root, self._state.root / "scratch") as flake:
            table = store.described(f"{flake}#{self._model}-image")
        image = pipeline_image.compose(self._checkout, self._state, self._model, table, self._report)
        rows = {name: self._stage(row, store, table, image) for name, row in plan.stages.items()}
        evidence = tuple(self._keep(blob) for blob in plan.blobs)
        order = Order(self._model, releasing, rows, image.environments, evidence)
        self._report("sending what the stages need to the registry")
        pushed = artifacts.push_layout(exchange.client, REPOSITORY, image.layout, image.digest)
        return Prepared(self._model, exchange.send_order(order, self._blobs.values()), pushed, tuple(steps))

    def _stage(self, plan: StagePlan, store: nix.NixStore, table: nix.Table, image: PipelineImage) -> StageOrder:
        spec = stages.spec(plan.stage)
        given: dict[str, Given] = {}
        for role, attribute in spec.gives.items():
            given[role] = (
                self._downloads() if attribute == "downloads" else self._recipe(attribute, store, table, image)
            )
        if "target" in spec.shown:
            given |= {role: self._recipe(role, store, table, image) for role in TARGETS[str(plan.plan.target)].inputs}
        return StageOrder(
            plan.plan, plan.code, plan.environment, plan.inputs, self._keep(self._sources(plan)), given
        )  # fmt: skip

    def _sources(self, plan: StagePlan) -> bytes:
        """Exactly those files that the stage's key covers, as they were when they were hashed."""
        entries: dict[str, Path | bytes | str] = {}
        for name, digest in plan.sources.files.items():
            path = self._checkout.root / name
            if path.is_symlink():
                entries[name] = path
                continue
            entries[name] = path.read_bytes()
            if digest_bytes(path.read_bytes()) != digest:
                raise CheckoutError("the file changed during the run", where=name, fix="run the command again")
        return archive.data(entries)

    def _downloads(self) -> Given:
        """Upstream's files by hash; they enter the registry once."""
        files = [file for file in fetch.locked_files(self._checkout.root, [self._model]) if file.is_kept]
        for file in files:
            self._blobs[file.digest] = self._state.downloads / file.folder / file.filename
        return Given({f"{file.folder}/{file.filename}": file.digest for file in files})

    def _recipe(self, attribute: str, store: nix.NixStore, table: nix.Table, image: PipelineImage) -> Given:
        """The steps of `<model>-<attribute>`, up to what the image holds and what other stages give."""
        steps, sources = recipe.describe(
            table, f"{self._model}-{attribute}", present=image.present, given=self._made(table)
        )
        entries: dict[str, Path | bytes | str] = {}
        for path in sources:
            name, real = Path(path).name, store.real(path)
            entries |= {name: real} | (dict(archive.members(real, name)) if real.is_dir() else {})
        digest = self._keep(archive.data(entries))
        roles = {path: role for path, role in self._made(table).items() if any(path in str(step) for step in steps)}
        return Given(recipe=self._keep(recipe.Recipe(tuple(steps), roles, digest).to_bytes()))

    def _made(self, table: nix.Table) -> Mapping[str, str]:
        """Store path of what a stage makes → the role under which the image build is given it."""
        build = next(step for step in STEPS if stages.spec(step.stage).gives.get("layout"))
        names = {f"{self._model}-{stage}": role for role, stage in build.parents}
        known = {fields["env"].get("name") for fields in table.values()}
        return {recipe.output(table, name): role for name, role in names.items() if name in known}

    def _keep(self, data: bytes) -> str:
        digest = digest_bytes(data)
        self._blobs[digest] = data
        return digest
