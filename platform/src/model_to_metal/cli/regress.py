"""`helix regress MODEL`: may this artifact go on? Golden cases and parity with the reference."""

from __future__ import annotations

import typer

from model_to_metal.cli import _pipeline


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("regress")(regress)


def regress(
    model: _pipeline.Model,
    no_cache: _pipeline.NoCache = False,
    as_json: _pipeline.AsJson = False,
    verbose: _pipeline.Verbose = False,
) -> None:
    """Measure the exported model against its golden cases and its reference; the verdict is recorded either way.

    Exit status: 0 within every limit; 1 beyond one; 2 could not tell.

    Examples:

        helix regress MODEL

        helix regress MODEL --no-cache
    """
    _pipeline.run(model, ["regress"], again=no_cache, as_json=as_json, verbose=verbose)
