"""`helix lock`: write the locks again from the requirement lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson
from model_to_metal.hermetic import resolve
from model_to_metal.host.checkout import Checkout

app = typer.Typer()


@app.command()
def lock(
    models: Annotated[list[str] | None, typer.Argument(help="Folders under models/. Default: every lock.")] = None,
    debs: Annotated[bool, typer.Option("--debs", help="Only the Debian packages and the seed.")] = False,
    host: Annotated[bool, typer.Option("--host", help="Only the environment of this command.")] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Newest versions, not the locked ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """Resolve requirements to one file each, by SHA-256. Needs the package index; downloads nothing large.

    Locked versions are kept where they still fit, unless --upgrade is given. Debian packages
    are always the newest of bookworm/main.

    Examples:

      helix lock MODEL

      helix lock --debs
    """
    checkout = Checkout.find()
    everything = not (models or debs or host)
    written: dict[Path, bool] = {}
    for name in models or (checkout.models if everything else []):
        written |= resolve.lock_model(checkout.model(name), upgrade=upgrade)
    if debs or everything:
        written |= resolve.lock_debs(checkout.root, State.find())
    if host or everything:
        written |= resolve.lock_host(checkout.root, upgrade=upgrade)
    rows = {path.relative_to(checkout.root).as_posix(): changed for path, changed in written.items()}
    lines = [f"{'changed  ' if changed else 'as it was'}  {name}" for name, changed in rows.items()]
    lines += ["next: helix fetch"] if any(rows.values()) else []
    typer.echo(json.dumps({"locks": rows}) if as_json else "\n".join(lines))
