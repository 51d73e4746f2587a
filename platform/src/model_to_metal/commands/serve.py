"""`helix serve MODEL`: run the released image on this machine, in the foreground."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal import runtime
from model_to_metal.commands import gate


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("serve")(serve)


def serve(
    model: gate.Model,
    http_port: Annotated[int, typer.Option(help="HTTP, on 127.0.0.1.")] = runtime.HTTP_PORT,
    grpc_port: Annotated[int, typer.Option(help="gRPC, on 127.0.0.1.")] = runtime.GRPC_PORT,
    as_json: gate.AsJson = False,
) -> None:
    """Serve the latest release of a model until Ctrl-C or SIGTERM, then finish what was accepted."""
    runtime.stop_on_terminate()
    with runtime.serving(State.find(), model, ports=runtime.Ports(http_port, grpc_port)) as server:
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
