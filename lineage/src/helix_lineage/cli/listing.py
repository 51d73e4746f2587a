"""`helix-lineage list`: which predictions there are, for who has no id."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import typer
from rich.markup import escape

from helix_lineage.cli import options
from helix_lineage.errors import LineageError
from helix_lineage.evidence.listing import ListedPrediction, PredictionFilter, newest

MOST = 20
_SHORT = len("sha256:") + 12


def list_predictions(
    *,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = MOST,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those that finished then or later, as 2026-01-31T00:00:00Z."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only this model's.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="HEX", help="Only those of this request (its id, or how that starts).")
    ] = None,
    log: options.LogOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List predictions, newest first: time (the host's claim), model, release, request, seed and id.

    Exit status: 0 listed; 1 listed, but a shard is damaged, and is named; 2 could not tell: there is no log.

    Examples:

        helix-lineage list

        helix-lineage list --limit 5 --model MODEL --since 2026-01-31T00:00:00Z --json

        helix-lineage list --log /mnt/log --request 5e0c36e6
    """
    damaged: list[dict[str, Any]] = []
    wanted = PredictionFilter(model, None if request is None else request.lower().replace("-", ""), _time(since))
    opened = options.open_log(log)
    found = newest(opened, wanted, lambda name, error: damaged.append({"shard": name, "problem": str(error)}))
    chosen = islice(found, limit or None)
    if as_json:
        _print_json(chosen, damaged)
    else:
        _print(chosen)
        for row in damaged:
            typer.echo(f"shard {row['shard']} cannot be read: {row['problem']}", err=True)
    if damaged:
        raise typer.Exit(options.FOUND)


def _print(rows: Iterable[ListedPrediction]) -> None:
    """A line each, as it comes: however many there are, they are never all in memory."""
    console, empty = options.console(), True
    for row in rows:
        if empty:
            console.print(f"[dim]{'finished (UTC)':<24}  {'model':<14}  {'release':<{_SHORT}}  {'request':<8}  "
                          f"{'item':>7}  {'seed':>20}  id[/dim]")  # fmt: skip
        entry, empty = row.entry, False
        item, seed = f"{entry.index + 1}/{entry.count}", "none" if entry.seed is None else str(entry.seed)
        release = (row.header.release or "none")[:_SHORT]
        console.print(
            f"{options.time(entry.finished_ns)[:23]:<24}  {escape(row.header.model):<14}  {release:<{_SHORT}}  "
            f"{entry.request_id.hex()[:8]}  {item:>7}  {seed:>20}  {row.id}"
        )
    if empty:
        console.print("no such prediction in this log")


def _print_json(rows: Iterable[ListedPrediction], damaged: list[dict[str, Any]]) -> None:
    """One document, written as the rows come."""
    typer.echo('{"version": 1, "predictions": [', nl=False)
    for number, row in enumerate(rows):
        finished = {"finished": options.time(row.entry.finished_ns)}
        typer.echo(("," if number else "") + "\n" + json.dumps(row.to_json() | finished), nl=False)
    typer.echo(f'], "damaged": {json.dumps(damaged)}}}')


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise LineageError(f"not a time as in 2026-01-31T00:00:00Z: {text!r}", where="--since") from error
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return int(found.timestamp() * 10**9)
