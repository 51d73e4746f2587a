"""`helix rebuild COMMIT`: make a released image again, offline, and compare."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from model_to_metal.cli import _options
from model_to_metal.host.checkout import Checkout
from model_to_metal.supply_chain import rebuild as rebuilding
from model_to_metal.supply_chain.rebuild import RebuildResult

app = typer.Typer()


@app.command()
def rebuild(
    commit: Annotated[str, typer.Argument(help="A commit that was released (any name that Git knows).")],
    release: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its release bundle, if it is neither here nor in gitops/.")
    ] = None,
    trust: _options.TrustFile = None,
    verbose: _options.AllTheyWrite = False,
    as_json: _options.AsJson = False,
) -> None:
    """Make a released image again from a clean clone of its commit and the locked inputs, without a network.

    The build starts from an empty store. Exit status: 0 the same image as the signed release names; 1 another one,
    and diffoscope's report of the layers that differ lies under .helix/reports; 2 it could not be made.

    Examples:

      helix rebuild HEAD

      helix rebuild 3f2a9c1 --release release.sigstore.json --json
    """
    checkout, state = Checkout.find(), State.find()
    full = checkout.resolve(commit)
    known = [release] if release else rebuilding.bundles(checkout, state)
    asked = rebuilding.find(full, known, Trust.load(trust or state.trust), datetime.now(UTC))

    def report(line: str) -> None:
        if verbose or not line.startswith(("building '/nix", " ")):
            typer.echo(line, err=True)

    with rebuilding.clone(checkout, full, state) as source:
        made = rebuilding.rebuild(source, asked, state, rebuilding.from_registry(asked, state), report=report)
    typer.echo(json.dumps(made.to_json()) if as_json else _text(made))
    if not made.equal:
        raise typer.Exit(1)


def _text(made: RebuildResult) -> str:
    spent = f"{made.steps} steps in {made.seconds:.0f} s, from an empty store, offline"
    named = f"{made.asked.model} at {made.asked.commit[:12]}"
    if made.equal:
        return f"{named}: the same image, {made.rebuilt} ({len(made.layers)} layers; {spent})"
    lines = [f"{named}: ANOTHER image ({spent})"]
    lines += [f"  released {made.asked.image}", f"  rebuilt   {made.rebuilt}"]
    lines += [f"  layer {layer.number}: {layer.one} is now {layer.other}" for layer in made.layers if not layer.equal]
    if made.report:
        lines += ["", made.report.head]
        lines += [f"the whole report: {made.report.folder}"] if made.report.folder else []
    return "\n".join(lines)
