"""`helix tools`: build the Go tools that the platform uses, and say which are there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.host import tools


def register(app: typer.Typer) -> None:
    """Mount `helix tools build` and `helix tools list`."""
    group = typer.Typer(help="The Go tools: built from source, by checksum, once.", no_args_is_help=True)
    group.command("build")(build)
    group.command("list")(show)
    app.add_typer(group, name="tools")


def build(names: Annotated[list[str] | None, typer.Argument(help="Default: cosign and olareg.")] = None) -> None:
    """Build tools into `.helix/tools`; what is there already is left alone.

    Examples:

        helix tools build

        helix tools build cosign
    """
    state = State.find()
    for name in names or tools.NEEDED:
        path = tools.ensure(name, state, lambda line: typer.echo(line, err=True))
        typer.echo(f"{name}: {path}")


def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every tool that the checkout declares, and whether it is built.

    Examples:

        helix tools list

        helix tools list --json
    """
    state = State.find()
    rows = {name: tools.is_built(tools.declared(name), state) for name in tools.names()}
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, built in rows.items():
        typer.echo(f"{name:12} {'built' if built else f'not built; run: helix tools build {name}'}")
