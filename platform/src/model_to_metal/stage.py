"""One stage as one command: `python -m model_to_metal.stage NAME …`.

Takes frozen records, input folders and an empty output folder; gives files in that folder
and a record. The same command runs in three places:

- in a Nix derivation: `--input ROLE=FOLDER … --output FOLDER`, files only;
- in a sandbox on a laptop: also `--parent ROLE=FILE …`, `--plan FILE` and `--record FILE`;
- in a pod: `--parent ROLE=DIGEST …`, `--plan DIGEST`, `--store FOLDER`, and `--digest FILE` for
  the record's digest. Inputs are the parents' files; files and record go into the store.

Exit status: 0 made; 3 made, and the verdict is no (what failed is on stderr); 1 not made (the reason is on stderr).

Only the standard library and `helix_lineage` may be imported here and in `stages/`: both
run in the Nix build environment.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from helix_lineage.canonical import Json, loads
from helix_lineage.errors import LineageError
from helix_lineage.records import Artifact, Record, parse
from model_to_metal import refusal
from model_to_metal.errors import ContractError, PipelineError, StageError

if TYPE_CHECKING:
    from helix_lineage.store import Store

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


def file_digest(path: Path) -> str:
    """`sha256:<64 hex>` of a file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; see the module's docstring for the forms and the exit status."""
    arguments = parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="helix-") as scratch:
            return _run(arguments, Path(scratch))
    except (PipelineError, LineageError) as error:
        print(f"stage {arguments.name}: {error}", file=sys.stderr)  # noqa: T201  the command's own output
        return 1


def pair(text: str) -> tuple[str, str]:
    """`ROLE=VALUE` as two texts. Raises StageError."""
    role, equals, value = text.partition("=")
    if not equals or not role or not value:
        raise StageError(f"expected ROLE=VALUE, not {text!r}")
    return role, value


def parser() -> argparse.ArgumentParser:
    """The command's options; the local engine reads a workflow's arguments with it."""
    made = argparse.ArgumentParser(prog="python -m model_to_metal.stage", description="Run one stage of the pipeline.")
    made.add_argument("name", choices=sorted(STAGES))
    made.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model's folder")
    made.add_argument("--input", action="append", default=[], metavar="ROLE=FOLDER")
    made.add_argument("--parent", action="append", default=[], metavar="ROLE=FILE|DIGEST", help="a parent's record")
    made.add_argument("--plan", metavar="FILE|DIGEST", help="what is settled: canonical JSON")
    made.add_argument("--parameters", type=Path, metavar="FILE", help="the plan's parameters alone: canonical JSON")
    made.add_argument("--store", type=Path, metavar="FOLDER", help="where records and files lie")
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="absent or empty")
    made.add_argument("--record", type=Path, metavar="FILE", help="where the record goes")
    made.add_argument("--digest", type=Path, metavar="FILE", help="where the record's digest goes")
    return made


def _run(arguments: argparse.Namespace, scratch: Path) -> int:
    store = _store(arguments)
    parents = {role: parse(_bytes(store, value)) for role, value in map(pair, arguments.parent)}
    inputs = {role: Path(path).resolve() for role, path in map(pair, arguments.input)}
    for role, record in parents.items():
        if store is not None and role not in inputs:
            inputs[role] = materialise(store, record, scratch / role)
    task = Task(
        model=arguments.model.resolve(),
        output=_empty(arguments.output),
        inputs=inputs,
        parents=parents,
        plan=_plan(arguments, store),
    )
    stage = load(arguments.name)
    found = stage.make(task)
    if arguments.record or arguments.digest:
        outputs = artifacts(task.output)
        record = stage.record(Made(plan=task.plan, parents=parents, found=found, outputs=outputs))
        _keep(arguments, store, record, task.output)
    if found.get("passed", True):
        return 0
    for row in refusal.failures(found):
        print(f"stage {arguments.name}: {refusal.line(row)}", file=sys.stderr)  # noqa: T201  the command's own output
    return EXIT_REFUSED


def materialise(store: Store, record: Record, folder: Path) -> Path:
    """A folder with the record's files: links into the store."""
    for output in record.outputs:
        path = folder / output.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(store.path(output.digest))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _keep(arguments: argparse.Namespace, store: Store | None, record: Record, output: Path) -> None:
    if store is not None:
        for artifact in record.outputs:
            store.put_file(output / artifact.name, artifact.name)
        store.put_record(record)
    if arguments.record:
        arguments.record.write_bytes(record.to_bytes())
    if arguments.digest:
        arguments.digest.write_text(record.digest)


def _store(arguments: argparse.Namespace) -> Store | None:
    if arguments.store is None:
        return None
    from helix_lineage.store import Store  # noqa: PLC0415  # a derivation has no store, and needs none

    return Store(arguments.store)


def _plan(arguments: argparse.Namespace, store: Store | None) -> Plan:
    if arguments.parameters:
        return Plan(loads(arguments.parameters.read_bytes()))
    if not arguments.plan:
        return Plan()
    value = loads(_bytes(store, arguments.plan))
    # A workflow has one plan for all its stages.
    return Plan.from_json(value["stages"][arguments.name] if "stages" in value else value)


def _bytes(store: Store | None, source: str) -> bytes:
    if not source.startswith("sha256:"):
        return Path(source).read_bytes()
    if store is None:
        raise StageError("a digest needs --store FOLDER", where=source)
    return store.read_bytes(source)


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise StageError("the output folder is not empty", where=str(folder))
    return folder.resolve()


if __name__ == "__main__":
    raise SystemExit(main())
