"""`helix check MODEL`: the guard, which says in a minute what would break production."""

from __future__ import annotations

import typer

from model_to_metal.cli import _pipeline


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("check")(check)


def check(
    model: _pipeline.Model,
    no_cache: _pipeline.NoCache = False,
    as_json: _pipeline.AsJson = False,
    verbose: _pipeline.Verbose = False,
) -> None:
    """Contract, locks, no pickle, and one inference in a sandbox; findings with file, line and fix.

    Exit status: 0 no finding; 1 a finding; 2 could not tell.

    Examples:

        helix check MODEL

        helix check MODEL --json
    """
    _pipeline.run(model, ["guard"], again=no_cache, as_json=as_json, verbose=verbose)
