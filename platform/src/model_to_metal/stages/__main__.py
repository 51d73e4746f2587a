"""One stage as one command: `python -m model_to_metal.stages NAME …`.

Takes frozen records, input folders and an empty output folder; gives files in that folder
and a record. The same command runs in three places:

- in a Nix derivation: `--input ROLE=FOLDER … --output FOLDER`, files only;
- in a sandbox on a laptop, and confined in a pod (`model_to_metal.pipeline.argo.pod`): also
  `--parent ROLE=FILE …`, `--plan FILE` and `--record FILE`.

Exit status: 0 made; 3 made, and the verdict is no (what failed is on stderr); 1 not made (the reason is on stderr).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from helix_lineage.errors import HelixError
from helix_lineage.formats.canonical import loads
from helix_lineage.records.chain import parse
from model_to_metal import refusal
from model_to_metal.errors import StageError
from model_to_metal.stages.arguments import pair, parser
from model_to_metal.stages.interface import (
    EXIT_REFUSED,
    StageResult,
    StageSettings,
    StageTask,
    artifacts,
    load,
    record as record_of,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; see the module's docstring for the forms and the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except HelixError as error:
        print(f"stage {arguments.name}: {error}", file=sys.stderr)  # noqa: T201  the command's own output
        return 1


def _run(arguments: argparse.Namespace) -> int:
    parents = {role: parse(Path(value).read_bytes()) for role, value in map(pair, arguments.parent)}
    inputs = {role: Path(path).resolve() for role, path in map(pair, arguments.input)}
    task = StageTask(
        model=arguments.model.resolve(),
        output=_empty(arguments.output),
        inputs=inputs,
        parents=parents,
        plan=_plan(arguments),
    )
    stage = load(arguments.name)
    found = stage.make(task)
    if arguments.record:
        outputs = artifacts(task.output)
        record = record_of(stage.SPEC, StageResult(plan=task.plan, parents=parents, found=found, outputs=outputs))
        arguments.record.write_bytes(record.to_bytes())
    if found.get("passed", True):
        return 0
    for row in refusal.failures(found):
        print(f"stage {arguments.name}: {refusal.line(row)}", file=sys.stderr)  # noqa: T201  the command's own output
    return EXIT_REFUSED


def _plan(arguments: argparse.Namespace) -> StageSettings:
    if arguments.parameters:
        return StageSettings(loads(arguments.parameters.read_bytes()))
    return StageSettings.from_json(loads(arguments.plan.read_bytes())) if arguments.plan else StageSettings()


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise StageError("the output folder is not empty", where=str(folder))
    return folder.resolve()


if __name__ == "__main__":
    raise SystemExit(main())
