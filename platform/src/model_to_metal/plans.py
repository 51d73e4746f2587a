"""What is settled before a release workflow runs: parameters, code digests and cache keys.

Takes the checkout; gives one `StagePlan` a stage. An unlocked environment or unknown data is
refused here, at the door, with the command that mends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helix_lineage.canonical import Json, digest_bytes, dumps
from helix_lineage.records import Record
from helixserve.machine import machine_class
from model_to_metal import sources
from model_to_metal.cache import Key
from model_to_metal.checkout import Checkout
from model_to_metal.errors import ContractError
from model_to_metal.sources import Sources
from model_to_metal.stage import Plan

BUILDER = "laptop"
"""Who builds here; production environments refuse it."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage's plan, and what else its cache key covers."""

    stage: str
    plan: Plan
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
        return Key(
            stage=self.stage,
            code=self.code,
            environment=self.environment,
            parameters=self.plan.parameters,
            parents={role: record.digest for role, record in parents.items()},
            inputs=self.inputs,
            target=self.plan.target,
            machine_class=self.plan.machine_class,
        )


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """The plans of all stages, and the sources that they name by digest."""

    stages: Mapping[str, StagePlan]
    blobs: tuple[bytes, ...]
    """Lists of sources, and locks: the store keeps them, so that a digest in a record can be looked up."""

    def to_bytes(self) -> bytes:
        """Canonical JSON, as `--plan` takes it."""
        return dumps({"stages": {name: stage.plan.to_json() for name, stage in self.stages.items()}})

    @property
    def digest(self) -> str:
        return digest_bytes(self.to_bytes())


def release_plan(checkout: Checkout, model: str, commit: str | None) -> ReleasePlan:
    """Plan a release of `model`; without a commit (a dirty tree) there is no plan for attest.

    Raises ContractError for what is not locked or not named in `model.toml`.
    """
    contract = checkout.contract(model)
    hooks, target = _hooks(contract, model), _target(contract, model)
    code = {
        "data": sources.closure(checkout, model, "data", [hooks["data"]]),
        "import": sources.closure(checkout, model, "import", [hooks["import"]]),
        "export": sources.closure(checkout, model, "export", [hooks["export"]]),
        "guard": sources.closure(checkout, model, "guard", [_served(contract, model)]),
        "regress": sources.closure(checkout, model, "regress", [hooks["evaluate"]]),
        "build": sources.closure(checkout, model, "build"),
        "attest": sources.closure(checkout, model, "attest"),
    }
    host, build = sources.host_environment(checkout), sources.environment(checkout, model, "build")
    serve, image = sources.environment(checkout, model, "serve"), sources.image(checkout, model)
    tree, folder, locks = sources.tree(checkout, model), f"models/{model}", sources.locks(checkout, model)
    contract_only, packages = tree.only(f"{folder}/model.toml"), sources.packages(checkout)
    # What a stage reads of the checkout besides the modules that it imports.
    reads = dict.fromkeys(code, contract_only) | {
        "data": contract_only | tree.only(f"{folder}/dvc.yaml", f"{folder}/dvc.lock", f"{folder}/data/"),
        "guard": tree | packages,
        "regress": contract_only | tree.only(f"{folder}/golden/"),
    }
    environments = {
        "data": host, "import": build, "export": build, "guard": serve, "regress": build, "build": serve, "attest": host,
    }  # fmt: skip

    def made(stage: str, source: Sources | None = None) -> dict[str, Json]:
        return {"model": model, "source": (source or code[stage]).digest, "environment": environments[stage].digest}

    plans = {
        "data": Plan({"model": model}),
        "import": Plan(made("import")),
        "export": Plan(made("export"), target),
        "guard": Plan({"model": model, "source": tree.digest, "locks": locks.digest}),
        "regress": Plan(made("regress"), target, machine_class()),
        "build": Plan(made("build", image), target),
    }
    if commit is not None:
        plans["attest"] = Plan({"model": model, "commit": commit, "builder": BUILDER}, target)
    judging = ("data", "guard", "regress")
    stages = {
        name: StagePlan(
            stage=name,
            plan=plan,
            code=code[name].digest,
            environment=environments[name].digest,
            sources=code[name] | reads[name],
            inputs={"read": reads[name].digest} if name in judging else {},
        )
        for name, plan in plans.items()
    }
    named = [*code.values(), host, build, serve, image, tree, locks]
    pinned = [(checkout.root / name).read_bytes() for name in (*locks.files, *host.files)]
    return ReleasePlan(stages, tuple(dict.fromkeys([*(item.to_bytes() for item in named), *pinned])))


def _hooks(contract: Mapping[str, Any], model: str) -> dict[str, str]:
    table = contract.get("stages")
    hooks = table if isinstance(table, dict) else {}
    for name in ("data", "import", "export", "evaluate"):
        if not isinstance(hooks.get(name), str) or ":" not in hooks[name]:
            raise ContractError(f"[stages] {name} = 'module:function' is missing", where=f"models/{model}/model.toml")
    return hooks


def _target(contract: Mapping[str, Any], model: str) -> str:
    try:
        return str(contract["target"]["name"])
    except (KeyError, TypeError) as error:
        raise ContractError("[target] name is missing", where=f"models/{model}/model.toml") from error


def _served(contract: Mapping[str, Any], model: str) -> str:
    try:
        return str(contract["serve"]["model"])
    except (KeyError, TypeError) as error:
        raise ContractError("[serve] model is missing", where=f"models/{model}/model.toml") from error
