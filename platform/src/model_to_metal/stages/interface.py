"""What a stage is: what it works on, what it gives, and how it is found by its name.

Only the standard library and `helix_lineage` may be imported here and in the stages: both run in
the Nix build environment.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from helix_lineage.errors import reason
from helix_lineage.formats.canonical import Json, file_digest
from helix_lineage.records.chain import Artifact, Record
from model_to_metal.errors import ContractError, StageError

EXIT_REFUSED = 3

_OTHERS = frozenset({"__main__", "arguments", "interface"})
"""The modules of this package that are no stage."""


class Runs(StrEnum):
    """What makes a stage."""

    DERIVATION = "derivation"
    """Nix, from the stage's own command in the build environment."""
    SERVE = "serve-env"
    """The stage's command in a sandbox, with the model's serve environment."""
    BUILD = "build-env"
    """The stage's command in a sandbox, with the model's build environment."""
    HOST = "host"
    """The stage's command in a sandbox, with the host's environment; no model code runs."""
    SIGNER = "signer"
    """The platform's process itself, where the keys are; no model code runs."""


@dataclass(frozen=True, slots=True)
class Gate:
    """How a stage that may refuse is spoken of."""

    name: str
    """What refused."""
    command: str
    """The command that asks again."""
    failed: str
    """What a refusal lists."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What a stage declares: planner, executors and `stages.nix` read it, and know no stage by its name."""

    name: str
    record: type[Record]
    """The record that it gives; its `PARENTS` are the roles of what it takes."""
    runs: Runs
    environment: str
    """Whose lock its key covers: `host`, or the group `build` or `serve` of the model's environments."""
    parameters: tuple[str, ...] = ("model", "source", "environment")
    """Those parameters of its plan that the record carries."""
    constants: Mapping[str, Json] = field(default_factory=dict)
    """Parameters that are the same in every record."""
    source: tuple[str, ...] = ("code",)
    """What the parameter `source` names: sets of sources, see `pipeline.plan`."""
    hook: tuple[str, str] | None = None
    """Table and key of `model.toml` that name the model's function that it runs."""
    serves: bool = False
    """Whether it asks the model as a server does, and so runs its runner."""
    reads: tuple[str, ...] = ()
    """Files and folders of the model's folder that it reads besides the modules that it imports."""
    shown: tuple[str, ...] = ()
    """Sets of sources that it reads besides."""
    gives: Mapping[str, str] = field(default_factory=dict)
    """Role → what the executor brings besides the parents' files: `downloads`, or what Nix builds of the model."""
    checks: Mapping[str, str] = field(default_factory=dict)
    """Role → what Nix derives of the model by itself in place of that parent: it must be the same."""
    attribute: str | None = None
    """What Nix calls the derivation: `<model>-<attribute>`."""
    target: bool = True
    """Whether its outputs are for one target."""
    machine_class: bool = False
    """Whether the machine's class changes what it gives."""
    keeps_files: bool = True
    """Whether the record lists the files of the output folder."""
    gate: Gate | None = None
    """Set where its verdict may be no."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What is settled about a stage before it runs."""

    parameters: Mapping[str, Json] = field(default_factory=dict)
    """What steers the stage."""
    target: str | None = None
    """What the outputs run on."""
    machine_class: str | None = None
    """The class of machine, where it changes the bytes."""

    @classmethod
    def from_json(cls, value: Json) -> StageSettings:
        """Read a plan. Raises StageError."""
        if not isinstance(value, dict) or not set(value) <= {"parameters", "target", "machine_class"}:
            raise StageError("a plan has the keys parameters, target, machine_class")
        return cls(value.get("parameters", {}), value.get("target"), value.get("machine_class"))

    def to_json(self) -> dict[str, Json]:
        """The JSON that `from_json` reads."""
        return {"parameters": dict(self.parameters), "target": self.target, "machine_class": self.machine_class}


@dataclass(frozen=True, slots=True)
class StageTask:
    """What a stage works on."""

    model: Path
    """The model's folder, with `model.toml`."""
    output: Path
    """An empty folder for the stage's files."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Role → folder with the files of that input."""
    parents: Mapping[str, Record] = field(default_factory=dict)
    """Role → parent record."""
    plan: StageSettings = field(default_factory=StageSettings)

    def input(self, role: str) -> Path:
        """The folder given for `role`. Raises StageError when it was not given."""
        if role not in self.inputs:
            raise StageError(f"the stage needs --input {role}=FOLDER")
        return self.inputs[role]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a record is made from, once the files are there."""

    plan: StageSettings
    parents: Mapping[str, Record] = field(default_factory=dict)
    """Role → parent record."""
    found: Mapping[str, Json] = field(default_factory=dict)
    """What the stage found out, for instance a verdict."""
    outputs: tuple[Artifact, ...] = ()
    """The files of the output folder."""

    @property
    def digests(self) -> dict[str, str]:
        """Role → digest of the parent record."""
        return {role: record.digest for role, record in self.parents.items()}

    def pick(self, *names: str) -> dict[str, Json]:
        """Those of the plan's parameters that belong in the record. Raises StageError when one is absent."""
        absent = [name for name in names if name not in self.plan.parameters]
        if absent:
            raise StageError(f"the record needs the parameters {absent}")
        return {name: self.plan.parameters[name] for name in names}


class Stage(Protocol):
    """What a module in `stages/` offers."""

    SPEC: StageSpec

    def make(self, task: StageTask) -> dict[str, Json]:
        """Write the stage's files into `task.output`; give what was found out."""
        ...


def record(spec: StageSpec, made: StageResult) -> Record:
    """The record of what was made. Pure. Raises StageError when the plan lacks a parameter."""
    return spec.record(
        parents=made.digests,
        parameters={**made.pick(*spec.parameters), **spec.constants, **made.found},
        outputs=made.outputs if spec.keeps_files else (),
        target=made.plan.target,
        machine_class=made.plan.machine_class,
    )


@cache
def stages() -> Mapping[str, str]:
    """Stage → the module in this package that holds it, sorted by stage. A new stage is one file."""
    here = importlib.import_module(__package__)
    modules = (module.name for module in pkgutil.iter_modules(here.__path__) if module.name not in _OTHERS)
    found = {_module(name).SPEC.name: name for name in modules}
    return MappingProxyType(dict(sorted(found.items())))


def load(name: str) -> Stage:
    """The stage of that name. Raises StageError for an unknown one."""
    if name not in stages():
        raise StageError(f"no stage is called {name!r}; there are: {', '.join(stages())}")
    return _module(stages()[name])


def spec(name: str) -> StageSpec:
    """What the stage of that name declares. Raises StageError for an unknown one."""
    return load(name).SPEC


def _module(name: str) -> Stage:
    # Imported by name, so that a stage's import closure (its code digest) holds no other stage.
    return cast(Stage, importlib.import_module(f"{__package__}.{name}"))


def hook(model: Path, name: str) -> Callable[..., object]:
    """The function that `[stages]` in `model.toml` names for `name`. Raises ContractError."""
    where = str(model / "model.toml")
    try:
        spec = tomllib.loads((model / "model.toml").read_text(encoding="utf-8"))["stages"][name]
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ContractError(f"model.toml cannot be read: {reason(error)}", where=where) from error
    except (KeyError, TypeError) as error:
        raise ContractError(f"model.toml has no [stages] {name} = 'module:function'", where=where) from error
    module, _, function = str(spec).partition(":")
    # Also when PYTHONPATH does not hold the model's package, for instance in a scaffolded test folder.
    source = str(model / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ContractError(f"[stages] {name} = {spec!r} cannot be imported: {error}", where=where) from error
    return cast(Callable[..., object], found)


def artifacts(folder: Path) -> tuple[Artifact, ...]:
    """Every file under `folder` as an artifact, sorted by name. Links and devices are refused."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise StageError("outputs are plain files", where=str(path))
        if path.is_file():
            found.append(Artifact(path.relative_to(folder).as_posix(), file_digest(path), path.stat().st_size))
    return tuple(sorted(found))
