"""`helix compile MODEL`: what a runner loads on the target that model.toml names."""

from __future__ import annotations

import typer

from model_to_metal.commands import gate


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("compile")(compile_for_target)


def compile_for_target(
    model: gate.Model, no_cache: gate.NoCache = False, as_json: gate.AsJson = False, verbose: gate.Verbose = False
) -> None:
    """Compile the exported model for its target, after the stages that this needs.

    Examples:

        helix compile proteinmpnn

        helix compile proteinmpnn --no-cache
    """
    gate.run(model, ["compile"], again=no_cache, as_json=as_json, verbose=verbose)
