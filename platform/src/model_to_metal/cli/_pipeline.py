"""What `helix check`, `export`, `regress` and `run` share: run the workflow and print the result."""

from __future__ import annotations

import json
from collections.abc import Iterable

import typer

from model_to_metal import refusal
from model_to_metal.local.workspace import Workspace
from model_to_metal.pipeline.progress import ProgressLines


def run(model: str, until: Iterable[str], *, again: bool, as_json: bool, verbose: bool) -> None:
    """Run the stages `until` and what they need. Raises GateRefused, which lists what failed, when a gate says no."""
    local, asked = Workspace.find(), tuple(until)

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    engine = local.engine(ProgressLines(say), say if verbose else lambda _line: None)
    outcomes = engine.run(model, until=asked, again=again)
    if not as_json:
        for row in (row for stage in asked for row in refusal.rows(outcomes[stage].record.parameters)):
            say(refusal.line(row))
    if not outcomes["data"].domain:
        say("nothing is remembered for the next run: there is no cache key; run: helix keys init")
    if not as_json and "attest" in outcomes:
        release = outcomes["attest"]
        say(f"released by the builder {release.record.parameters['builder']}, from stages of {release.domain} only")
    if as_json:
        rows = [outcome.to_json() for outcome in outcomes.values()]
        last = list(outcomes.values())[-1].record
        typer.echo(json.dumps({"model": model, "passed": True, "stages": rows, "record": last.to_json()}))
