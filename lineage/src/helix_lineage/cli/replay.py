"""`helix-lineage replay`: make predictions again, to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from helix_lineage.cli import options
from helix_lineage.errors import LineageError, PredictionNotFound, ReplayError
from helix_lineage.formats.named import read_named
from helix_lineage.formats.typed import decode
from helix_lineage.replay import ReplayExecutor, ReplayPlan, ReplayPlanner, Verdict
from helix_lineage.replay.verdict import DIFFERS, NOT_REPLAYED, OTHER_CLASS, SAME, UNDECIDED, WITHIN, unplanned

REGISTRY = "127.0.0.1:5070"
_INPUT_BYTES = 2**30


def replay(
    predictions: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Prediction ids.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every prediction in the log.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1, help="What if: replay with another seed.")] = None,
    given: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="What if: replay with another typed input.")
    ] = None,
    registry: Annotated[
        str, typer.Option(envvar="HELIX_REGISTRY", metavar="HOST:PORT", help="Where images are pulled from.")
    ] = REGISTRY,
    repository: Annotated[str | None, typer.Option(help="The image's repository, if not the release's.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of unpacked images. Default: .helix/images.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Where bytes differ, compare numbers: absolute below 1, relative above. Text exactly."
        ),
    ] = None,
    cpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="What if: on this processor, emulated (Haswell, EPYC). Slow.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For one request.")] = 600.0,
    log: options.LogOption = None,
    store: options.StoreOption = None,
    trust: options.TrustOption = None,
    release: options.ReleaseOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Make predictions again in fresh processes in their image's own files, and compare the bytes.

    Stored outputs are not needed: the log's commitments are (--tolerance does need them).

    Exit status: 0 all the same bytes, or within the tolerance given; 1 something differs, and it is named; 2 could
    not tell: nothing could be run, or other bytes came out, but on another class of machine than the one that
    served (then --tolerance compares the numbers).

    Examples:

        helix-lineage replay 5e0c36e6a9f0ddc4b1f2a4d6c8e0f123.17

        helix-lineage replay --all --registry 127.0.0.1:5070 --json

        helix-lineage replay ID --seed 8        # what if: fails, and names the seed

        helix-lineage replay ID --cpu Haswell --tolerance 1e-4
    """
    if bool(predictions) == everything:
        raise LineageError("name predictions, or say --all, not both")
    typed = None if given is None else _typed(given)
    planner = ReplayPlanner(options.open_log(log), options.sources(trust, store, release))
    lost: list[ReplayPlan | Verdict] = []
    names = predictions or planner.all(
        lambda shard, error: lost.append(unplanned(shard, f"the shard cannot be read: {error}"))
    )
    planned = [*(_plan(planner, name, seed, typed) for name in names), *lost]
    executor = ReplayExecutor(images or _images(), registry, repository, timeout, tolerance, cpu)
    results = iter(_run(executor, [plan for plan in planned if isinstance(plan, ReplayPlan)], quiet=as_json))
    verdicts = [plan if isinstance(plan, Verdict) else next(results) for plan in planned]
    if as_json:
        options.print_json([verdict.to_json() for verdict in verdicts])
    else:
        _print(verdicts)
    if status := _status(verdicts):
        raise typer.Exit(status)


def _status(verdicts: list[Verdict]) -> int:
    outcomes = {verdict.outcome for verdict in verdicts}
    if DIFFERS in outcomes:
        return options.FOUND
    return options.FAILED if outcomes & UNDECIDED else 0


def _run(executor: ReplayExecutor, plans: list[ReplayPlan], *, quiet: bool) -> list[Verdict]:
    """Replay behind a progress bar on standard error."""
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet or len(plans) < 2, transient=True) as bar:
        task = bar.add_task("replay", total=len(plans))
        return executor.replay(plans, lambda _: bar.advance(task))


def _plan(planner: ReplayPlanner, name: str, seed: int | None, typed: bytes | None) -> ReplayPlan | Verdict:
    """What to run; or, where one prediction cannot be replayed, that verdict: the others still can."""
    try:
        plan = planner.plan(name)
    except PredictionNotFound:  # a misspelt id is not a verdict
        raise
    except LineageError as error:
        return unplanned(name, str(error))
    try:
        plan = plan if typed is None else plan.with_input(typed)
        return plan if seed is None else plan.with_seed(seed)
    except ReplayError as error:
        return unplanned(name, str(error))


def _swap(plan: ReplayPlan, seed: int | None, given: Path | None) -> ReplayPlan:
    if given is not None:
        plan = plan.with_input(_typed(given))
    return plan if seed is None else plan.with_seed(seed)


def _typed(path: Path) -> bytes:
    """The typed input in a file. Raises LineageError."""
    data = read_named(path, "the input", limit=_INPUT_BYTES)
    try:
        decode(data)
    except LineageError as error:
        raise LineageError(f"this is not a typed input: {error.what}", where=str(path)) from error
    return data


def _images() -> Path:
    here = options.state()
    if here is None:
        raise LineageError("there is no place for images here", fix="add --images DIR, or cd into the checkout")
    return here.images


_WORDS = {
    SAME: ("green", "same bytes"),
    WITHIN: ("green", "other bytes, within the tolerance"),
    OTHER_CLASS: ("yellow", "other bytes, on another machine class"),
    NOT_REPLAYED: ("yellow", "could not be replayed"),
    DIFFERS: ("red", "differs"),
}


def _print(verdicts: list[Verdict]) -> None:
    console = options.console()
    for verdict in verdicts:
        colour, text = _WORDS[verdict.outcome]
        console.print(f"{verdict.id}  [{colour}]{text}[/{colour}]")
        for difference in verdict.differences:
            console.print(f"  {difference.factor}: {escape(difference.detail)}")
        if verdict.deviation is not None:
            console.print(f"  numbers: {escape(verdict.deviation.sentence)}")
        if verdict.outcome == NOT_REPLAYED:
            console.print("  this neither confirms nor refutes it")
        if verdict.outcome == OTHER_CLASS:
            where = f"on a machine of class {verdict.recorded_class}"
            console.print(f"  this neither confirms nor refutes it: replay {where}, or say --tolerance")
    same = sum(verdict.same for verdict in verdicts)
    if len(verdicts) > 1:
        console.print(f"{same} of {len(verdicts)} predictions replayed to the same bytes")
