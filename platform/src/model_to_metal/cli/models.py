"""`helix models`: which models there are, what they do, and whether they were released on this machine."""

from __future__ import annotations

import json
from typing import Any

import typer

from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from model_to_metal.cli import _options
from model_to_metal.errors import ContractError
from model_to_metal.host.checkout import Checkout
from model_to_metal.supply_chain import releasing

app = typer.Typer()


@app.command()
def models(as_json: _options.AsJson = False) -> None:
    """List the models of this checkout: name, version, tasks, runner, and the commit that was released here.

    Examples:

        helix models

        helix models --json
    """
    checkout, state = Checkout.find(), State.find()
    rows = [_row(checkout, state, name) for name in checkout.models]
    lines = [
        f"{row['name']:16} version {row['version']}  {row['runner']}  {', '.join(row['tasks'])}  "
        + (f"released from {row['released'][:12]}" if row["released"] else "not released here")
        for row in rows
    ]
    typer.echo(json.dumps(rows) if as_json else "\n".join(lines or ["there is no model under models/"]))


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
