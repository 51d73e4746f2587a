"""`helix regress MODEL`: may this artifact go on? Golden cases and parity with the reference."""

from __future__ import annotations

import typer

from model_to_metal.commands import gate


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("regress")(regress)


def regress(
    model: gate.Model, no_cache: gate.NoCache = False, as_json: gate.AsJson = False, verbose: gate.Verbose = False
) -> None:
    """Measure the exported model against its golden cases and its reference; the verdict is recorded either way.

    Exit status: 0 within every limit; 1 beyond one; 2 could not tell.

    Examples:

        helix regress proteinmpnn

        helix regress proteinmpnn --no-cache
    """
    gate.run(model, ["regress"], again=no_cache, as_json=as_json, verbose=verbose)
