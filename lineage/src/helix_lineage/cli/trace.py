"""`helix-lineage trace`: what made this prediction."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from rich.tree import Tree

from helix_lineage.cli import options
from helix_lineage.errors import ShardError, TrustError
from helix_lineage.evidence.trace import ARTIFACTS, CHAIN, Trace, TracedFile, artifacts, trace as trace_prediction
from helix_lineage.formats.named import write_named
from helix_lineage.page import gather, page
from helix_lineage.records.chain import Record
from helix_lineage.shard.header import parse_prediction_id

_LONG = 100  # characters of a parameter that a tree shows


def trace(
    prediction: Annotated[str, typer.Argument(metavar="ID", help="Prediction id: <shard>.<sequence>.")],
    *,
    log: options.LogOption = None,
    store: options.StoreOption = None,
    trust: options.TrustOption = None,
    release: options.ReleaseOption = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write a page that stands alone, even of a fault."),
    ] = None,
    directory: options.DirectoryOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show the commit, data, seed, weights, environments and image that made a prediction.

    Exit status: 0 shown and the signatures of release and promotion hold (or the shard has none); 1 shown, but
    one does not hold, the stored input or output is not the one that was committed to (or can't be read), the
    directory does not know the shard, something that it rests on was revoked, or its log does not hold; 2 could not
    tell: no such prediction, no trust root to check a signature with, or a directory that can't be read or misses a
    statement.

    Examples:

        helix-lineage trace 5e0c36e6a9f0ddc4b1f2a4d6c8e0f123.17

        helix-lineage trace ID --log /mnt/log --trust trust.json --release release.sigstore.json --json

        helix-lineage trace ID --html trace.html
    """
    parse_prediction_id(prediction)
    opened, known = options.open_log(log), options.sources(trust, store, release)
    view = options.open_directory(options.directory_of(directory, log), trust)
    if html is not None:
        write_named(html, page(gather(opened, prediction, known, view)), "the page")
    try:
        found = trace_prediction(opened, prediction, known, view)
    except (ShardError, TrustError) as error:
        _refuse(prediction, error, as_json=as_json)
    if as_json:
        options.print_json(found.to_json())
    else:
        options.console().print(tree(found))
    if status := _status(found, trusting=known.trust is not None):
        raise typer.Exit(status)


def _status(found: Trace, *, trusting: bool) -> int:
    """What the trace amounts to; what nobody could check is neither yes nor no."""
    unsigned = found.problem is not None and found.header.release is not None
    if found.payload_problems:
        return options.FOUND
    if found.directory is not None and (found.directory.index is None or found.directory.marks):
        return options.FOUND
    if trusting and (unsigned or found.promotion_problem is not None):
        return options.FOUND
    return options.FAILED if unsigned or found.promotion_problem is not None else 0


def _refuse(prediction: str, error: ShardError | TrustError, *, as_json: bool) -> NoReturn:
    """The answer is no where the log does not hold; where it cannot be read, there is no answer."""
    if isinstance(error.__cause__, OSError):
        raise error
    if as_json:
        options.print_json({"version": 2, "id": prediction, "holds": False, "problem": str(error)})
    else:
        options.console().print(f"[red]does not hold:[/red] {escape(str(error))}")
    raise typer.Exit(options.FOUND) from error


def tree(found: Trace) -> Tree:
    """The trace as a tree for people."""
    entry, header = found.entry, found.header
    root = Tree(f"[bold]{found.id}[/bold]  {escape(header.model)}, item {entry.index + 1} of {entry.count}")
    for warning in found.values.warnings:
        root.add(f"[bold yellow]warning       {escape(warning)}[/bold yellow]")
    root.add(f"seed          {entry.seed if entry.seed is not None else 'none'}")
    root.add(f"lane          {entry.lane}")
    root.add(f"time          {_time(entry.started_ns)} … {_time(entry.finished_ns)} (the host's claim)")
    root.add(f"request       {entry.request_id.hex()}")
    kept = f"payload       input {found.payload['input']}, output {found.payload['output']}"
    root.add(f"[red]{escape(kept)}[/red]" if found.payload_problems else kept)
    signed = found.inclusion.checkpoint
    root.add(f"log entry     {found.inclusion.sequence} of {signed.size}, included under {signed.root.hex()[:16]}…")
    _add_directory(root, found)
    shard = root.add(f"shard         {found.id.partition('.')[0]}")
    shard.add(f"machine class {escape(header.machine_class)}")
    shard.add(f"image         {header.image or 'none claimed'} (claimed)")
    _add_promotion(shard, found)
    shard.add("libraries     " + escape(", ".join(f"{name} {text}" for name, text in sorted(header.libraries.items()))))
    _add_release(root, found)
    return root


def _add_promotion(shard: Tree, found: Trace) -> None:
    header, promotion = found.header, found.promotion
    if header.promotion is None:
        shard.add(f"mode          {header.mode}, no promotion")
        return
    branch = shard.add(f"mode          {header.mode}, generation {header.generation}, promotion {header.promotion}")
    if promotion is None:
        branch.add(f"[red]promotion     {escape(found.promotion_problem or '')}[/red]")
        return
    branch.add(f"environment   {escape(promotion.environment)}")
    branch.add(f"[green]signed by     {promotion.key_id}[/green] ({escape(promotion.builder)})")


def _add_directory(root: Tree, found: Trace) -> None:
    said = found.directory
    if said is None:
        root.add("directory     none was asked: nothing but this log says that the shard was ever registered")
        root.add("revocations   not checked: add --directory URL|FOLDER")
        return
    if said.index is None or said.registered_ns is None:
        root.add(f"[red]directory     {escape(said.origin)} does not know this shard[/red]")
    else:
        branch = root.add(f"directory     {escape(said.origin)}: registered as entry {said.index}")
        branch.add(f"registered    {options.time(said.registered_ns)}")
        before = "not yet" if said.before_ns is None else options.time(said.before_ns)
        after = options.time(said.after_ns or said.registered_ns)
        branch.add(f"entry seen    between {after} and {before}, by the directory's clock")
    for mark in said.marks:
        root.add(f"[red]{escape(mark.text)}[/red]")
    if not said.marks:
        root.add("revocations   none, by that directory")


def _add_release(root: Tree, found: Trace) -> None:
    if found.found is None:
        root.add(f"[red]release       {escape(str(found.header.release))}: {escape(found.problem or '')}[/red]")
        return
    release, verified = found.found.release, found.found.verified
    branch = root.add(f"release       {release.digest}  (record)")
    branch.add(f"code commit   {escape(str(release.parameters['commit']))}")
    if verified is not None:
        branch.add(f"[green]signed by     {verified.key_id}[/green] ({escape(verified.builder)})")
    else:
        branch.add(f"[red]signature     {escape(found.problem or '')}[/red]")
    for role in CHAIN:
        record = found.record(role)
        if record is not None:
            _add_record(branch, role, record)


def _add_record(branch: Tree, role: str, record: Record) -> None:
    things = artifacts(role, record) if role in ARTIFACTS else []
    node = branch.add(f"{role:<13} {_thing(things[0]) if len(things) == 1 else _counted(role, record, len(things))}")
    for thing in things if len(things) > 1 else ():
        node.add(_thing(thing))
    node.add(f"record        {record.digest}  {record.TYPE}")
    for name, value in sorted(record.parameters.items()):
        node.add(f"{name:<13} {escape(_text(value))}")
    if record.seed is not None:
        node.add(f"seed          {record.seed}")


def _thing(thing: TracedFile) -> str:
    return f"{thing.digest}  {escape(thing.name)}" + ("" if thing.size is None else f", {thing.size} bytes")


def _counted(role: str, record: Record, count: int) -> str:
    """What stands for several things, for none, and for a verdict."""
    if role in ARTIFACTS:
        return f"{count} files" if count else "no file of its own"
    return "passed" if record.parameters.get("passed") is True else "refused"


def _text(value: Any) -> str:
    text = f"{len(value)} listed" if isinstance(value, list) else str(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")
