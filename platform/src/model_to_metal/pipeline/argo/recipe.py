"""Steps that Nix described, run without Nix.

Some inputs of a stage are built by steps that only `platform/nix` defines: an image's layers, the
kernels. Where there is no Nix, the very steps that it would run are run all the same: program,
arguments and environment come from its derivations. `describe` turns those into a recipe (canonical
JSON) on the machine that submits a release; `follow` runs one in a pod. What depends on locks alone
lies in the pod's image, at the paths that it has in a store.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.formats.canonical import Json, dumps, loads
from model_to_metal.errors import NixError
from model_to_metal.hermetic.nix import Table

OUT = "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"
"""What stands in a derivation for its own output (`placeholder "out"`)."""
PREFIX = "/nix/store/"

Run = Callable[[Sequence[str], Mapping[str, str]], None]
"""Runs a command with an environment; raises when it fails."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order, the last of which gives the result."""

    steps: tuple[Mapping[str, Any], ...]
    """`{"out", "argv", "environment"}` each, with store paths as Nix wrote them."""
    given: Mapping[str, str]
    """Store path → the stage's role whose files stand there."""
    archive: str
    """Digest of an archive with the sources that the steps take, named as in a store."""

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return dumps({"steps": [dict(step) for step in self.steps], "given": dict(self.given), "archive": self.archive})

    @classmethod
    def from_bytes(cls, data: bytes) -> Recipe:
        """Read what `to_bytes` gave."""
        value = loads(data)
        return cls(tuple(value["steps"]), dict(value["given"]), str(value["archive"]))


def output(table: Table, name: str) -> str:
    """The store path of the one step called `name`. Raises NixError."""
    found = {fields["outputs"]["out"]["path"] for fields in table.values() if fields["env"].get("name") == name}
    if len(found) != 1:
        raise NixError(f"{len(found)} steps of the build are called {name!r}", where="platform/nix")
    return str(found.pop())


def describe(
    table: Table, name: str, *, present: Iterable[str], given: Mapping[str, str]
) -> tuple[list[Mapping[str, Json]], list[str]]:
    """(the steps that make `name`, the sources that they take); pure.

    `present` are store paths that need no step, `given` those that a stage's files stand for. Raises NixError when
    a step would need a download, which a pod can't have.
    """
    ends = {*present, *given}
    drv_of = {fields["outputs"]["out"]["path"]: drv for drv, fields in table.items()}
    steps: dict[str, Mapping[str, Json]] = {}
    sources: set[str] = set()

    def visit(path: str) -> None:
        if path in ends or path in steps:
            return
        fields = table[drv_of[path]]
        if "hash" in fields["outputs"]["out"]:
            raise NixError(f"to make {name}, a pod would have to download {path}", where="platform/nix")
        for needed in sorted(fields["inputDrvs"]):
            visit(str(table[needed]["outputs"]["out"]["path"]))
        sources.update(fields["inputSrcs"])
        steps[path] = _step(path, fields)

    visit(output(table, name))
    return list(steps.values()), sorted(sources)


def _step(path: str, fields: Mapping[str, Any]) -> Mapping[str, Json]:
    environment = {name: value for name, value in fields["env"].items() if name not in ("builder", "system")}
    return {"out": path, "argv": [fields["builder"], *fields["args"]], "environment": environment}


def follow(recipe: Recipe, sources: Path, inputs: Mapping[str, Path], folder: Path, run: Run) -> Path:
    """Run the steps below `folder`; gives the last one's output.

    `sources` holds the archive's content, `inputs` the files of each role that the recipe is given.
    """
    places = {f"{PREFIX}{path.name}": path for path in sources.iterdir()}
    places |= {path: inputs[role] for path, role in recipe.given.items()}
    for step in recipe.steps:
        places[step["out"]] = folder / str(step["out"]).removeprefix(PREFIX)
    made = folder
    for step in recipe.steps:
        made = places[step["out"]]
        shutil.rmtree(made, ignore_errors=True)
        words = [_placed(word, made, places) for word in step["argv"]]
        run(words, {name: _placed(value, made, places) for name, value in step["environment"].items()})
    return made


def _placed(text: str, out: Path, places: Mapping[str, Path]) -> str:
    text = text.replace(OUT, str(out))
    for path, place in places.items():
        text = text.replace(path, str(place))
    return text
