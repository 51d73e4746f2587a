"""`helix serve MODEL`: run the released image on this machine, in the foreground."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.cli import _options
from model_to_metal.gitops import layout
from model_to_metal.host.checkout import Checkout
from model_to_metal.local import container

app = typer.Typer()


@app.command()
def serve(
    model: _options.Model,
    http_port: Annotated[int, typer.Option(help="HTTP, on 127.0.0.1.")] = container.HTTP_PORT,
    grpc_port: Annotated[int, typer.Option(help="gRPC, on 127.0.0.1.")] = container.GRPC_PORT,
    environment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Serve what gitops/argocd promotes into this environment.")
    ] = None,
    as_json: _options.AsJson = False,
) -> None:
    """Serve the latest release of a model until Ctrl-C or SIGTERM, then finish what was accepted.

    With --environment, the release that the working tree's gitops/argocd/environments/NAME/MODEL names: the
    server verifies its promotion too, and its shard's header names it.

    Examples:

        helix serve MODEL

        helix serve MODEL --environment staging
    """
    container.stop_on_terminate()
    where = None
    if environment is not None:
        where = container.Environment(environment, Checkout.find().root / layout.folder(environment, model))
    ports = container.Ports(http_port, grpc_port)
    with container.serving(State.find(), model, ports=ports, environment=where) as server:
        if as_json:
            row = {
                "model": model,
                "image": server.image,
                "release": server.release,
                "http": server.http,
                "grpc": server.grpc,
            }
            typer.echo(json.dumps(row))
        else:
            typer.echo(f"{model} {server.image}\n  HTTP {server.http}\n  gRPC {server.grpc}\nCtrl-C stops it.")
        try:
            server.wait()
        except KeyboardInterrupt:
            typer.echo("draining", err=True)
