"""`helix doctor`: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

import json

import typer

from helix_lineage.paths import State
from model_to_metal.cli import _options
from model_to_metal.host.checkout import Checkout
from model_to_metal.local import doctor as examination

app = typer.Typer()


@app.command()
def doctor(as_json: _options.AsJson = False) -> None:
    """Say what is there, what is missing, and the command that mends it. Changes nothing.

    Of the processor it says the machine class, which answers have the same bytes here and elsewhere,
    and which kernels run.

    Exit status: 0 nothing is missing; 1 something is; 2 could not tell.

    Examples:

        helix doctor

        helix doctor --json | jq '.[] | select(.name == "processor").facts'
    """
    found = examination.examine(Checkout.find(), State.find())
    if as_json:
        typer.echo(json.dumps([finding.to_json() for finding in found]))
    else:
        for finding in found:
            mark = "ok  " if finding.met else "MISS"
            typer.echo(f"{mark}  {finding.name:12} {finding.detail}")
            for note in finding.notes:
                typer.echo(f"      {'':12} {note}")
            if not finding.met and finding.fix:
                typer.echo(f"      {'':12} run: {finding.fix}")
    if not all(finding.met for finding in found):
        raise typer.Exit(1)
