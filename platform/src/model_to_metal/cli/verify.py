"""`helix verify`: is an image whole, signed, and all that is said about it true?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer

from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson, TrustFile, report
from model_to_metal.host import tools
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain.verify import VerificationReport, verify_image

app = typer.Typer()


@app.command()
def verify(
    image: Annotated[str, typer.Argument(help="[HOST:PORT/]REPOSITORY@sha256:HEX")],
    trust: TrustFile = None,
    as_json: AsJson = False,
) -> None:
    """Check an image offline: its bytes, signatures, provenance, test result, release and records.

    Asks the registry and nothing else.

    Exit status: 0 every check passes; 1 one fails; 2 could not tell: registry or trust root cannot be read.

    Examples:

        helix verify helix/MODEL@sha256:…

        helix verify registry.example/helix/MODEL@sha256:… --trust trust.json --json
    """
    state = State.find()
    root = Trust.load(trust or state.trust)
    cosign = tools.ensure("cosign", state, report)
    with _opened(image, state) as (client, named):
        verified = verify_image(client, named, root, cosign, at=datetime.now(UTC))
    typer.echo(json.dumps(verified.to_json(), indent=2) if as_json else _text(verified))
    if not verified.passed:
        raise typer.Exit(1)


@contextmanager
def _opened(text: str, state: State) -> Iterator[tuple[Client, Image]]:
    """The registry that the image names; this checkout's own if it names none, or ours is not running."""
    named = Image.parse(text, registry=f"{artifacts.HOST}:{artifacts.PORT}")
    with Client(named.registry) as client:
        elsewhere = text.startswith(named.registry) and not named.registry.startswith(f"{artifacts.HOST}:")
        if elsewhere or (text.startswith(named.registry) and client.alive()):
            yield client, named
            return
    with artifacts.serving(state) as address, Client(address) as client:
        yield client, Image(address, named.repository, named.digest)


def _text(verified: VerificationReport) -> str:
    lines = [f"{'ok  ' if check.passed else 'FAIL'}  {check.name:13} {check.detail}" for check in verified.checks]
    promoted = "mode local: no promotion vouches for it in an environment yet"
    lines.append(f"{'verified' if verified.passed else 'NOT VERIFIED'}: {verified.image} ({promoted})")
    return "\n".join(lines)
