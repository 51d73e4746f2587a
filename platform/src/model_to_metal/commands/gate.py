"""What `helix check`, `export`, `regress` and `run` share: run the workflow and print what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer

from model_to_metal.errors import GateRefused
from model_to_metal.local import Local
from model_to_metal.report import Lines, verdict_lines

Model = Annotated[str, typer.Argument(help="A folder under models/.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Make every stage again and compare with what is recorded.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Nix and the tools write.")]


def run(model: str, until: Iterable[str], *, again: bool, as_json: bool, verbose: bool) -> None:
    """Run the stages `until` and what they need. Exits with 1 when a gate says no."""
    local = Local.find()

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    engine = local.engine(Lines(say), say if verbose else lambda _line: None)
    try:
        outcomes = engine.run(model, until=until, again=again)
    except GateRefused as refused:
        record = local.store.get_record(refused.digest)
        if as_json:
            typer.echo(
                json.dumps({"model": model, "passed": False, "digest": record.digest, "record": record.to_json()})
            )
            raise typer.Exit(1) from refused
        for line in verdict_lines(record):
            typer.echo(line)
        raise
    if not outcomes["data"].domain:
        say("nothing is remembered for the next run: there is no cache key; run: helix keys init")
    if not as_json and "attest" in outcomes:
        release = outcomes["attest"]
        say(f"released by the builder {release.record.parameters['builder']}, from stages of {release.domain} only")
    if as_json:
        rows = [outcome.to_json() for outcome in outcomes.values()]
        last = list(outcomes.values())[-1].record
        typer.echo(json.dumps({"model": model, "passed": True, "stages": rows, "record": last.to_json()}))
