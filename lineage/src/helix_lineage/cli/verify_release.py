"""`helix-lineage verify-release`: does this signed release hold?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.attestations.release import verify_release as verify
from helix_lineage.attestations.trust import Trust
from helix_lineage.cli import options
from helix_lineage.errors import RecordError, TrustError
from helix_lineage.formats.named import read_named


def verify_release(
    bundle: Annotated[Path, typer.Argument(metavar="FILE", help="release.sigstore.json; - is standard input.")],
    *,
    image: Annotated[str | None, typer.Option(metavar="DIGEST", help="The image that must be the release's.")] = None,
    trust: options.TrustOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check a release's signature, its subject, and that its chain of records is complete.

    Exit status: 0 it holds; 1 it does not, and the field is named; 2 could not tell.

    Examples:

        helix-lineage verify-release release.sigstore.json --trust trust.json

        helix-lineage verify-release release.sigstore.json --image sha256:… --json
    """
    problem = _problem(bundle, options.trust_root(trust), image)
    if as_json:
        options.print_json({"version": 1, "holds": problem is None, "problem": problem})
    else:
        typer.echo(problem or "the release holds: signature, subject and every record of its chain")
    if problem is not None:
        raise typer.Exit(options.FOUND)


def _problem(bundle: Path, trust: Trust, image: str | None) -> str | None:
    """What does not hold, as of now."""
    data = read_named(bundle, "the bundle")
    try:
        verify(data, trust, image=image, at=datetime.now(UTC))
    except (TrustError, RecordError) as error:
        return str(error)
    return None
