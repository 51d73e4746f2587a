"""`helix run release MODEL`: the whole way from the commit to a signed image, here or on a cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from model_to_metal.cli import _on_cluster, _options, _pipeline
from model_to_metal.cluster.layout import DEFAULT_NAME
from model_to_metal.errors import WorkflowError
from model_to_metal.workflows.release import NAME

app = typer.Typer()


class Place(StrEnum):
    """Where a workflow may run."""

    HERE = "here"
    CLUSTER = "cluster"


@app.command()
def run(  # noqa: PLR0917  options of a command line
    workflow: Annotated[str, typer.Argument(help="The workflow: release.")],
    model: _options.Model,
    on: Annotated[Place, typer.Option("--on", help="This machine, or the cluster's Argo Workflows.")] = Place.HERE,
    cluster: Annotated[
        str, typer.Option("--cluster", help="With --on cluster: which cluster of this checkout.")
    ] = DEFAULT_NAME,
    no_cache: _options.NoCache = False,
    as_json: _options.AsJson = False,
    verbose: _options.Verbose = False,
) -> None:
    """Run a workflow: each stage is taken from the cache, or run in a sandbox here or in a pod of the cluster.

    Both ways give the same records and the same image. On the cluster the stages are shown as they change.

    Examples:

        helix run release MODEL

        helix run release MODEL --no-cache --json

        helix run release MODEL --on cluster
    """
    if workflow != NAME:
        raise WorkflowError(f"no workflow is called {workflow!r}; there is: {NAME}")
    if on is Place.CLUSTER:
        if no_cache:
            raise WorkflowError("--no-cache compares with what this machine recorded", fix="leave out --on cluster")
        _on_cluster.run(model, cluster, as_json=as_json, verbose=verbose)
        return
    _pipeline.run(model, [], again=no_cache, as_json=as_json, verbose=verbose)
