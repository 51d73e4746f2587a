"""`helix attest`: sign an image and attach what is known about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.paths import RELEASE_FILE, State
from helix_lineage.records.chain import Release
from helix_lineage.records.store import RecordStore
from model_to_metal.cli._options import AsJson, report
from model_to_metal.errors import AttestError
from model_to_metal.host.checkout import Checkout
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain.attest import attest_image, chain, gather

app = typer.Typer()


@app.command()
def attest(
    release: Annotated[str, typer.Argument(help="Digest of a release that `helix run release` recorded.")],
    layout: Annotated[Path | None, typer.Option(help="OCI layout of the image, if it is not pushed yet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a recorded release and its image with cosign, offline; what is signed already is left alone.

    Examples:

        helix attest sha256:…

        helix attest sha256:… --layout /tmp/image --json
    """
    if layout is not None and not layout.is_dir():
        raise AttestError("there is no folder with an OCI layout", where=str(layout))
    state = State.find()
    store = RecordStore(state.store)
    record = store.get_record(release)
    if not isinstance(record, Release):
        raise AttestError(f"this is a {record.TYPE}, not a release", where=release)
    digest, name = record.parameters["image"], artifacts.repository(record.parameters["model"])
    below = chain(record, store)
    evidence = gather(below, store, Checkout.find().root)
    with artifacts.serving(state) as address, Client(address) as client:
        image = artifacts.push_layout(client, name, layout, digest) if layout else Image(address, name, digest)
        done = attest_image(
            state, client, image, record,
            records=below, evidence=evidence, report=report,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"image": str(done.image), "release": record.digest, "signed": done.signed}))
        return
    typer.echo(f"{done.image}: {f'signed {len(done.signed)} statements' if done.signed else 'was signed already'}")
    typer.echo(f"for servers: {done.folder / RELEASE_FILE}")
