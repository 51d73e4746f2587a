"""What is settled before a release workflow runs: parameters, code digests and cache keys.

Takes the checkout; gives one `StagePlan` a stage. An unlocked environment or unknown data is
refused here, first, with the command that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from helix_lineage.formats.canonical import Json, dumps
from helix_lineage.records.chain import Record
from helixserve.runners import RUNNERS
from helixserve.runners.machine import machine_class
from model_to_metal.errors import ContractError
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import closure
from model_to_metal.pipeline.cache import Key
from model_to_metal.pipeline.closure import Sources
from model_to_metal.stages import interface as stages
from model_to_metal.stages.interface import StageSettings, StageSpec
from model_to_metal.supply_chain import keys
from model_to_metal.targets import TARGETS, Target


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage's plan, and what else its cache key covers."""

    stage: str
    plan: StageSettings
    code: str
    """Digest of the import closure."""
    environment: str
    """Digest of what the environment is made from."""
    sources: Sources
    """Everything of the checkout that the stage is shown."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role → digest of sources that the stage reads besides its code and its parents."""

    def key(self, parents: Mapping[str, Record]) -> Key:
        """The stage's cache key, once its parents are known."""
        return Key.of(self.stage, self, parents)


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """The plans of the stages, and the sources that they name by digest."""

    stages: Mapping[str, StagePlan]
    blobs: tuple[bytes, ...]
    """Lists of sources, and locks: the store keeps them, so that a digest in a record can be looked up."""

    def to_bytes(self) -> bytes:
        """Canonical JSON, as `--plan` takes it."""
        return dumps({"stages": {name: stage.plan.to_json() for name, stage in self.stages.items()}})


def release_plan(
    checkout: Checkout, model: str, stages: Iterable[str], commit: str | None = None, *, builder: str = keys.BUILDER
) -> ReleasePlan:
    """Plan those stages of a release of `model`; attest needs the commit, and who signs.

    Raises ContractError for what is not locked, or not named in `model.toml`.
    """
    planner = _Planner(checkout, model, commit, builder)
    plans = {name: planner.stage(name) for name in stages}
    return ReleasePlan(plans, tuple(dict.fromkeys(planner.blobs)))


class _Planner:
    """Hashes sources once, and remembers what it named by digest."""

    def __init__(self, checkout: Checkout, model: str, commit: str | None, builder: str) -> None:
        self._checkout = checkout
        self._model = model
        self._commit = commit
        self._builder = builder
        self._where = f"models/{model}/model.toml"
        self._contract = checkout.contract(model)
        self._tree = closure.tree(checkout, model)
        self.blobs: list[bytes] = []

    def stage(self, name: str) -> StagePlan:
        spec = stages.spec(name)
        code = closure.closure(self._checkout, self._model, name, self._hooks(spec))
        environment = self._environment(spec)
        folder = f"models/{self._model}"
        read = self._tree.only(*(f"{folder}/{path}" for path in spec.reads))
        for kind in spec.shown:
            read |= self._sources(kind, code)
        for named in (code, environment):
            self._name(named)
        return StagePlan(
            stage=name,
            plan=self._plan(spec, code, environment),
            code=code.digest,
            environment=environment.digest,
            sources=code | read,
            inputs={"read": read.digest},
        )

    def _hooks(self, spec: StageSpec) -> list[str]:
        """What the stage loads by name, as `module:attribute`."""
        hooks = [self._text(*spec.hook)] if spec.hook else []
        if spec.serves:
            runner = self._text("serve", "runner")
            hooks.append(RUNNERS.get(runner, runner))
        return hooks

    def _plan(self, spec: StageSpec, code: Sources, environment: Sources) -> StageSettings:
        """What goes into the stage's record."""
        known: dict[str, Callable[[], Json]] = {
            "model": lambda: self._model,
            "source": lambda: self._name(reduce(or_, (self._sources(kind, code) for kind in spec.source))),
            "environment": lambda: environment.digest,
            "locks": self._locks,
            "commit": lambda: self._commit,
            "builder": lambda: self._builder,
        }
        return StageSettings(
            {name: known[name]() for name in spec.parameters},
            self._text("target", "name") if spec.target else None,
            machine_class() if spec.machine_class else None,
        )

    def _environment(self, spec: StageSpec) -> Sources:
        if spec.environment == "host":
            return closure.host_environment(self._checkout)
        return closure.environment(self._checkout, self._model, spec.environment)

    def _sources(self, kind: str, code: Sources) -> Sources:
        """A set of sources by the name that a StageSpec uses.

        `code`: the stage's import closure; `tree`: the model's folder; `packages`: the platform's packages
        in an image; `image`: all that an image is made from; `target`: what compile puts beside the exported graphs.
        """
        sets: dict[str, Callable[[], Sources]] = {
            "code": lambda: code,
            "tree": lambda: self._tree,
            "packages": lambda: closure.packages(self._checkout),
            "image": lambda: closure.image(self._checkout, self._model),
            "target": self._target_sources,
        }
        return sets[kind]()

    def _target_sources(self) -> Sources:
        folder = f"models/{self._model}"
        return closure.code(self._checkout, (path.format(model=folder) for path in self._known_target().sources))

    def _locks(self) -> dict[str, Json]:
        locks = closure.locks(self._checkout, self._model)
        self._name(locks)
        return dict(locks.files)

    def _known_target(self) -> Target:
        if (name := self._text("target", "name")) not in TARGETS:
            fix = f"use one of {', '.join(TARGETS)}"
            raise ContractError(f"[target] name is {name!r}, which no stage compiles for", where=self._where, fix=fix)
        return TARGETS[name]

    def _text(self, table: str, key: str) -> str:
        found: Any = self._contract.get(table)
        value = found.get(key) if isinstance(found, dict) else None
        if not isinstance(value, str) or not value:
            raise ContractError(f"[{table}] {key} is missing", where=self._where)
        return value

    def _name(self, named: Sources) -> str:
        """Remember a list of sources that a record names, and the locks in it; gives its digest."""
        locks = [name for name in named.files if name.endswith(".lock")]
        self.blobs += [named.to_bytes(), *((self._checkout.root / name).read_bytes() for name in locks)]
        return named.digest
