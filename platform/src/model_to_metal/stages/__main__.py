"""One stage as one command: `python -m model_to_metal.stages NAME …`.

Takes frozen records, input folders and an empty output folder; gives files in that folder
and a record. The same command runs in three places:

- in a Nix derivation: `--input ROLE=FOLDER … --output FOLDER`, files only;
- in a sandbox on a laptop: also `--parent ROLE=FILE …`, `--plan FILE` and `--record FILE`;
- in a pod: `--parent ROLE=DIGEST …`, `--plan DIGEST`, `--store FOLDER`, and `--digest FILE` for
  the record's digest. Inputs are the parents' files; files and record go into the store.

Exit status: 0 made; 3 made, and the verdict is no (what failed is on stderr); 1 not made (the reason is on stderr).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helix_lineage.errors import HelixError
from helix_lineage.formats.canonical import loads
from helix_lineage.records.chain import Record, parse
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

if TYPE_CHECKING:
    from helix_lineage.records.store import RecordStore


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; see the module's docstring for the forms and the exit status."""
    arguments = parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="helix-") as scratch:
            return _run(arguments, Path(scratch))
    except HelixError as error:
        print(f"stage {arguments.name}: {error}", file=sys.stderr)  # noqa: T201  the command's own output
        return 1


def _run(arguments: argparse.Namespace, scratch: Path) -> int:
    store = _store(arguments)
    parents = {role: parse(_bytes(store, value)) for role, value in map(pair, arguments.parent)}
    inputs = {role: Path(path).resolve() for role, path in map(pair, arguments.input)}
    for role, record in parents.items():
        if store is not None and role not in inputs:
            inputs[role] = materialise(store, record, scratch / role)
    task = StageTask(
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
        record = record_of(stage.SPEC, StageResult(plan=task.plan, parents=parents, found=found, outputs=outputs))
        _keep(arguments, store, record, task.output)
    if found.get("passed", True):
        return 0
    for row in refusal.failures(found):
        print(f"stage {arguments.name}: {refusal.line(row)}", file=sys.stderr)  # noqa: T201  the command's own output
    return EXIT_REFUSED


def materialise(store: RecordStore, record: Record, folder: Path) -> Path:
    """A folder with the record's files: links into the store."""
    for output in record.outputs:
        path = folder / output.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(store.path(output.digest))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _keep(arguments: argparse.Namespace, store: RecordStore | None, record: Record, output: Path) -> None:
    if store is not None:
        for artifact in record.outputs:
            store.put_file(output / artifact.name, artifact.name)
        store.put_record(record)
    if arguments.record:
        arguments.record.write_bytes(record.to_bytes())
    if arguments.digest:
        arguments.digest.write_text(record.digest)


def _store(arguments: argparse.Namespace) -> RecordStore | None:
    if arguments.store is None:
        return None
    from helix_lineage.records.store import RecordStore  # noqa: PLC0415  # a derivation has no store, and needs none

    return RecordStore(arguments.store)


def _plan(arguments: argparse.Namespace, store: RecordStore | None) -> StageSettings:
    if arguments.parameters:
        return StageSettings(loads(arguments.parameters.read_bytes()))
    if not arguments.plan:
        return StageSettings()
    value = loads(_bytes(store, arguments.plan))
    # A workflow has one plan for all its stages.
    return StageSettings.from_json(value["stages"][arguments.name] if "stages" in value else value)


def _bytes(store: RecordStore | None, source: str) -> bytes:
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
