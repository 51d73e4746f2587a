"""`helix check`, `export`, `compile` and `regress`: run the pipeline until one stage."""

from __future__ import annotations

from collections.abc import Callable

import typer

from model_to_metal.cli import _options, _pipeline

COMMANDS = {
    "check": (
        "guard",
        """Contract, locks, no pickle, and one inference in a sandbox; findings with file, line and fix.

        Exit status: 0 no finding; 1 a finding; 2 could not tell.

        Examples:

            helix check MODEL

            helix check MODEL --json
        """,
    ),
    "export": (
        "export",
        """Export the model, after the stages that this needs.

        Examples:

            helix export MODEL

            helix export MODEL --no-cache
        """,
    ),
    "compile": (
        "compile",
        """Compile the exported model for its target, after the stages that this needs.

        Examples:

            helix compile MODEL

            helix compile MODEL --no-cache
        """,
    ),
    "regress": (
        "regress",
        """Measure the exported model against its golden cases and its reference; the verdict is recorded either way.

        Exit status: 0 within every limit; 1 beyond one; 2 could not tell.

        Examples:

            helix regress MODEL

            helix regress MODEL --no-cache
        """,
    ),
}
"""Each command: its stage, and its help."""

app = typer.Typer()


def _until(stage: str) -> Callable[..., None]:
    def command(
        model: _options.Model,
        no_cache: _options.NoCache = False,
        as_json: _options.AsJson = False,
        verbose: _options.Verbose = False,
    ) -> None:
        _pipeline.run(model, [stage], again=no_cache, as_json=as_json, verbose=verbose)

    return command


for _name, (_stage, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_until(_stage))
