"""`helix export MODEL`: the weights as graphs that a runner loads."""

from __future__ import annotations

import typer

from model_to_metal.commands import gate


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("export")(export)


def export(
    model: gate.Model, no_cache: gate.NoCache = False, as_json: gate.AsJson = False, verbose: gate.Verbose = False
) -> None:
    """Export the model, after the stages that this needs.

    Examples:

        helix export proteinmpnn

        helix export proteinmpnn --no-cache
    """
    gate.run(model, ["export"], again=no_cache, as_json=as_json, verbose=verbose)
