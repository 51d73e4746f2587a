"""What a stage is: what it works on, what it gives, and how it is found by its name.

Only the standard library and `helix_lineage` may be imported here and in the stages: both run in
the Nix build environment.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from helix_lineage.formats.canonical import Json, file_digest
from helix_lineage.records.chain import Artifact, Record
from model_to_metal.errors import ContractError, StageError

STAGES: Mapping[str, str] = {
    "guard": "guard",
    "data": "data",
    "import": "import_weights",
    "export": "export",
    "compile": "compile_engine",
    "regress": "regress",
    "build": "build",
    "attest": "attest",
}
"""Stage → its module in `stages/`. A new stage is one file and one line here."""

EXIT_REFUSED = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What is settled about a stage before it runs."""

    parameters: Mapping[str, Json] = field(default_factory=dict)
    """What steers the stage."""
    target: str | None = None
    """What the outputs run on."""
    machine_class: str | None = None
    """The class of machine, where it changes the bytes."""

    @classmethod
    def from_json(cls, value: Json) -> Plan:
        """Read a plan. Raises StageError."""
        if not isinstance(value, dict) or not set(value) <= {"parameters", "target", "machine_class"}:
            raise StageError("a plan has the keys parameters, target, machine_class")
        return cls(value.get("parameters", {}), value.get("target"), value.get("machine_class"))

    def to_json(self) -> dict[str, Json]:
        """The JSON that `from_json` reads."""
        return {"parameters": dict(self.parameters), "target": self.target, "machine_class": self.machine_class}


@dataclass(frozen=True, slots=True)
class Task:
    """What a stage works on."""

    model: Path
    """The model's folder, with `model.toml`."""
    output: Path
    """An empty folder for the stage's files."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Role → folder with the files of that input."""
    parents: Mapping[str, Record] = field(default_factory=dict)
    """Role → parent record."""
    plan: Plan = field(default_factory=Plan)

    def input(self, role: str) -> Path:
        """The folder given for `role`. Raises StageError when it was not given."""
        if role not in self.inputs:
            raise StageError(f"the stage needs --input {role}=FOLDER")
        return self.inputs[role]


@dataclass(frozen=True, slots=True)
class Made:
    """What a record is made from, once the files are there."""

    plan: Plan
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

    def make(self, task: Task) -> dict[str, Json]:
        """Write the stage's files into `task.output`; give what was found out."""
        ...

    def record(self, made: Made) -> Record:
        """The record of what was made. Pure."""
        ...


def load(name: str) -> Stage:
    """The stage of that name. Raises StageError for an unknown one."""
    if name not in STAGES:
        raise StageError(f"no stage is called {name!r}; there are: {', '.join(STAGES)}")
    # Imported by name, so that a stage's import closure (its code digest) holds no other stage.
    return cast(Stage, importlib.import_module(f"model_to_metal.stages.{STAGES[name]}"))


def hook(model: Path, name: str) -> Callable[..., object]:
    """The function that `[stages]` in `model.toml` names for `name`. Raises ContractError."""
    where = str(model / "model.toml")
    try:
        spec = tomllib.loads((model / "model.toml").read_text(encoding="utf-8"))["stages"][name]
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ContractError(f"model.toml cannot be read: {error}", where=where) from error
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
