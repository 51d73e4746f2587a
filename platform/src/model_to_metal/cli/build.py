"""`helix build`: the image of a model, once or twice."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from helix_lineage.paths import State
from model_to_metal.cli import _options
from model_to_metal.hermetic import image
from model_to_metal.host.checkout import Checkout

_STEP = re.compile(r"building '/nix/store/[a-z0-9]{32}-(\S+)\.drv'")


app = typer.Typer()


@app.command()
def build(
    model: _options.Model,
    twice: Annotated[bool, typer.Option("--twice", help="Build again from an empty store, and compare.")] = False,
    verbose: _options.AllTheyWrite = False,
    as_json: _options.AsJson = False,
) -> None:
    """Build a model's image with Nix, from the locks and the sources as they are in this checkout.

    With --twice, every step is run again: later, with another number of cores, and in a store at
    another place. The manifests are compared: if they are not equal, the exit status is 1, and
    the first file that differs is named, with diffoscope's report under .helix/reports.

    Examples:

      helix build MODEL

      helix build MODEL --twice --json
    """
    checkout, state, report = Checkout.find(), State.find(), _reporter(verbose)
    checkout.model(model)
    if not twice:
        built = image.build(model, checkout.root, state, report=report)
        row = {"model": model, "image": built.manifest, "layout": str(built.layout)}
        typer.echo(json.dumps(row) if as_json else f"{model}: {built.manifest}\n{built.layout}")
        return
    both, again = image.build_twice(model, checkout.root, state, report=report)
    if as_json:
        facts = {"model": model, "image": both.manifest, "layout": str(both.layout), "equal": True}
        typer.echo(json.dumps(facts | dataclasses.asdict(again)))
        return
    typer.echo(f"{model}: {both.manifest}\n{both.layout}")
    typer.echo(
        f"rebuilt from an empty store: equal; {again.steps} steps run again in {again.seconds:.0f} s, "
        f"with {again.cores[1]} instead of {again.cores[0]} cores"
    )
    if again.unstable:
        typer.echo(f"steps that differ without changing the image: {', '.join(again.unstable)}")


def _reporter(verbose: bool) -> Callable[[str], None]:
    """Prints Nix's progress to standard error: a line a step, or everything."""
    console, started = Console(stderr=True, highlight=False), time.monotonic()

    def report(line: str) -> None:
        step = _STEP.match(line)
        if verbose or not line.startswith(("building", "error", " ")):
            console.print(line, markup=False)
        elif step:
            console.print(f"{time.monotonic() - started:6.0f} s  {step[1]}", markup=False)

    return report
