"""`helix compile MODEL`: what a runner loads on the target that model.toml names."""

from __future__ import annotations

import typer

from model_to_metal.cli import _pipeline


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("compile")(compile_for_target)


def compile_for_target(
    model: _pipeline.Model,
    no_cache: _pipeline.NoCache = False,
    as_json: _pipeline.AsJson = False,
    verbose: _pipeline.Verbose = False,
) -> None:
    """Compile the exported model for its target, after the stages that this needs.

    Examples:

        helix compile MODEL

        helix compile MODEL --no-cache
    """
    _pipeline.run(model, ["compile"], again=no_cache, as_json=as_json, verbose=verbose)
