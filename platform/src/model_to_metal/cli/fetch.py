"""`helix fetch`: bring in what the locks name."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson
from model_to_metal.hermetic import fetch as fetching
from model_to_metal.host.checkout import Checkout

app = typer.Typer()


@app.command()
def fetch(
    models: Annotated[list[str] | None, typer.Argument(help="Folders under models/. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download every locked file and put it into the Nix store: the only step that uses the network.

    Files come through pip and apt as this machine has them set up, and each is checked against
    its SHA-256. What is there already is left alone. HELIX_DEBIAN_MIRROR names another mirror.

    Examples:

      helix fetch

      HELIX_DEBIAN_MIRROR=http://mirror.example/debian helix fetch MODEL
    """
    checkout = Checkout.find()
    for name in models or []:
        checkout.model(name)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading the locks", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what[:48].ljust(48), completed=done, total=total)

        done = fetching.fetch(checkout.root, State.find(), models=models, progress=progress)
    text = f"{done.locked} files are locked: {done.downloaded} downloaded, {done.added} added to the store"
    typer.echo(json.dumps(dataclasses.asdict(done)) if as_json else text)
