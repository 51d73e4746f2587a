"""Compile: exported model, target → `CompiledEngine`, the files that a runner loads on that target.

For `onnxruntime-cpu` those are the exported graphs, for `native-cpu` the graphs and beside them the
kernels of each CPU level, which are compiled by a derivation of their own and come in as an input.
Runs as a Nix derivation.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from helix_lineage.errors import reason
from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import CompiledEngine
from model_to_metal.errors import ContractError, StageError
from model_to_metal.stages.interface import Runs, StageSpec, StageTask
from model_to_metal.targets import TARGETS

SPEC = StageSpec(
    name="compile",
    record=CompiledEngine,
    runs=Runs.DERIVATION,
    environment="build",
    source=("code", "target"),
    reads=("model.toml",),
    shown=("target",),
    attribute="engine",
)


def make(task: StageTask) -> dict[str, Json]:
    """Put the engine's files together. Raises ContractError for an unknown target, StageError for what is absent."""
    name = _target(task.model)
    if task.plan.target not in (None, name):
        raise StageError(f"the plan's target is {task.plan.target!r}, model.toml's is {name!r}", where=str(task.model))
    for role in ("exported", *TARGETS[name].inputs):
        _copy(task.input(role), task.output, role)
    return {}


def _target(model: Path) -> str:
    where = str(model / "model.toml")
    try:
        name = tomllib.loads((model / "model.toml").read_text(encoding="utf-8"))["target"]["name"]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ContractError(f"model.toml has no [target] name: {reason(error)}", where=where) from error
    if not isinstance(name, str) or name not in TARGETS:
        raise ContractError(f"no target is called {name!r}", where=where, fix=f"use one of {', '.join(TARGETS)}")
    return name


def _copy(source: Path, output: Path, role: str) -> None:
    """Every file of a folder, with the bytes alone: the store's modes and times are no part of an engine."""
    names = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    if not names:
        raise StageError(f"the input {role!r} holds no files", where=str(source))
    for name in names:
        if (output / name).exists():
            raise StageError(f"the input {role!r} has a file that another one has", where=name.as_posix())
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, output / name)
