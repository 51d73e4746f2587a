"""`helix export MODEL`: the weights as graphs that a runner loads."""

from __future__ import annotations

import typer

from model_to_metal.cli import _pipeline


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("export")(export)


def export(
    model: _pipeline.Model,
    no_cache: _pipeline.NoCache = False,
    as_json: _pipeline.AsJson = False,
    verbose: _pipeline.Verbose = False,
) -> None:
    """Export the model, after the stages that this needs.

    Examples:

        helix export MODEL

        helix export MODEL --no-cache
    """
    _pipeline.run(model, ["export"], again=no_cache, as_json=as_json, verbose=verbose)
