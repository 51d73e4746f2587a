"""`helix run release MODEL`: the whole way from the commit to a signed image."""

from __future__ import annotations

from typing import Annotated

import typer

from model_to_metal.cli import _options, _pipeline
from model_to_metal.errors import WorkflowError
from model_to_metal.workflows.release import NAME

app = typer.Typer()


@app.command()
def run(
    workflow: Annotated[str, typer.Argument(help="The workflow: release.")],
    model: _options.Model,
    no_cache: _options.NoCache = False,
    as_json: _options.AsJson = False,
    verbose: _options.Verbose = False,
) -> None:
    """Run a workflow on this machine: each stage is taken from the cache, or run in a sandbox.

    Examples:

        helix run release MODEL

        helix run release MODEL --no-cache --json
    """
    if workflow != NAME:
        raise WorkflowError(f"no workflow is called {workflow!r}; there is: {NAME}")
    _pipeline.run(model, [], again=no_cache, as_json=as_json, verbose=verbose)
