"""`helix check MODEL`: the guard, which says in a minute what would break production."""

from __future__ import annotations

import typer

from model_to_metal.commands import gate


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("check")(check)


def check(
    model: gate.Model, no_cache: gate.NoCache = False, as_json: gate.AsJson = False, verbose: gate.Verbose = False
) -> None:
    """Contract, locks, no pickle, and one inference in a sandbox; findings with file, line and fix.

    Exit status: 0 no finding; 1 a finding; 2 could not tell.

    Examples:

        helix check proteinmpnn

        helix check proteinmpnn --json
    """
    gate.run(model, ["guard"], again=no_cache, as_json=as_json, verbose=verbose)
