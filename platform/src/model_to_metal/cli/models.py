"""`helix models`: which models there are, what they do, and whether they were released on this machine."""

from __future__ import annotations

import json
from typing import Any

import typer

from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from model_to_metal.cli import _pipeline
from model_to_metal.errors import ContractError
from model_to_metal.host.checkout import Checkout
from model_to_metal.supply_chain import releasing


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("models")(models)


def models(as_json: _pipeline.AsJson = False) -> None:
    """List the models of this checkout: name, version, tasks, runner, and the commit that was released here.

    Examples:

        helix models

        helix models --json
    """
    checkout, state = Checkout.find(), State.find()
    rows = [_row(checkout, state, name) for name in checkout.models]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("there is no model under models/")
    for row in rows:
        released = f"released from {row['released'][:12]}" if row["released"] else "not released here"
        typer.echo(f"{row['name']:16} version {row['version']}  {row['runner']}  {', '.join(row['tasks'])}  {released}")


def _row(checkout: Checkout, state: State, name: str) -> dict[str, Any]:
    contract = checkout.contract(name)
    try:
        row = {
            "version": contract["version"],
            "tasks": sorted(contract["tasks"]),
            "runner": contract["serve"]["runner"],
        }
    except (KeyError, TypeError) as error:
        where = str(checkout.model(name) / "model.toml")
        raise ContractError(f"model.toml does not say {error}", where=where, fix=f"helix check {name}") from error
    return {"name": name, **row, "released": _released(state, name)}


def _released(state: State, name: str) -> str | None:
    """The commit of the latest release that was signed on this machine, and still verifies."""
    try:
        return str(releasing.signed_release(state, name).release.parameters["commit"])
    except LineageError:
        return None
