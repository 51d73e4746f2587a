"""`helix registry`: the OCI registry of this checkout."""

from __future__ import annotations

import contextlib
import signal
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.registry import artifacts

app = typer.Typer(name="registry", help="The OCI registry of this checkout (olareg).", no_args_is_help=True)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Another one is taken when it is not free.")] = artifacts.PORT,
) -> None:
    """Serve `.helix/registry` on 127.0.0.1 until Ctrl-C (or SIGTERM).

    Examples:

        helix registry serve

        helix registry serve --port 5071
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), artifacts.serving(State.find(), port=port) as address:
        typer.echo(f"serving on {address}; Ctrl-C ends it")
        signal.pause()
