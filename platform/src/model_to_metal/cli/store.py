"""`helix store prune`: remove from the Nix store what this checkout no longer needs."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson, report
from model_to_metal.hermetic import fetch, prune as pruning
from model_to_metal.hermetic.nix import NixStore
from model_to_metal.host.checkout import Checkout

app = typer.Typer(name="store", help="The Nix store of this checkout.", no_args_is_help=True)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what the locks and sources of this checkout, as they are now, no longer reach.

    What goes came of older commits; it is fetched and made again when one of them is built. A store that
    several checkouts share keeps only what this one needs.

    Examples:

      helix store prune --dry-run

      helix store prune --json
    """
    checkout, state = Checkout.find(), State.find()
    locked = [file.store_path for file in fetch.locked_files(checkout.root)]
    scratch = state.root / "scratch"
    done = pruning.prune(checkout.root, NixStore.of(state), scratch, keep=locked, dry=dry_run, report=report)
    verb = "would remove" if dry_run else "removed"
    total = f"{verb} {len(done.removed)} store paths, {done.size / 1e9:.2f} GB; {done.kept} are needed"
    lines = [*(done.removed if dry_run else ()), total]
    typer.echo(json.dumps(dataclasses.asdict(done)) if as_json else "\n".join(lines))
