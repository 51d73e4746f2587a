"""`helix tools`: build the Go tools that the platform uses, and say which are there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson, report
from model_to_metal.host import tools

app = typer.Typer(name="tools", help="The Go tools: built from source, by checksum, once.", no_args_is_help=True)


@app.command()
def build(names: Annotated[list[str] | None, typer.Argument(help="Default: cosign and olareg.")] = None) -> None:
    """Build tools into `.helix/tools`; what is there already is left alone.

    Examples:

        helix tools build

        helix tools build cosign
    """
    state = State.find()
    for name in names or tools.NEEDED:
        path = tools.ensure(name, state, report)
        typer.echo(f"{name}: {path}")


@app.command("list")
def show(as_json: AsJson = False) -> None:
    """Every tool that the checkout declares, and whether it is built.

    Examples:

        helix tools list

        helix tools list --json
    """
    state = State.find()
    rows = {name: tools.is_built(tools.declared(name), state) for name in tools.names()}
    lines = (
        f"{name:12} {'built' if built else f'not built; run: helix tools build {name}'}" for name, built in rows.items()
    )
    typer.echo(json.dumps(rows) if as_json else "\n".join(lines))
