"""`helix keys`: development keys, and the trust root that names them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson
from model_to_metal.errors import KeysError
from model_to_metal.supply_chain import cache_keys, keys

app = typer.Typer(name="keys", help="Development keys, and the trust root that names them.", no_args_is_help=True)


@app.command()
def init(
    domain: Annotated[
        str,
        typer.Option(metavar="|".join(cache_keys.DOMAINS), help="Whose stages this machine records (its cache key)."),
    ] = cache_keys.LAPTOP,
    builder: Annotated[
        str, typer.Option(metavar="|".join(keys.BUILDERS), help="Who releases with the keys that are made now.")
    ] = keys.BUILDER,
) -> None:
    """Make the development keys that are missing, and `trust.json`; never overwrites one.

    One key each for releaser, promoter, revoker, the stage cache and the directory. All but the last are
    encrypted with the passphrase in COSIGN_PASSWORD, or with the empty one if that is not set; the
    directory, which has nobody to ask, keeps its own in the clear. Their builder id is `laptop` unless
    --builder names another: production environments refuse a laptop's. The cache key's is the machine's
    trust domain: a release uses only what its own domain recorded. A token is made too: with it servers
    of this machine register their shards at its directory (`directory.token`, mode 0600; the directory
    knows its digest, in `registrants`).

    Examples:

        helix keys init

        helix keys init --domain pull-request

        helix keys init --domain release --builder github
    """
    if domain not in cache_keys.DOMAINS:
        raise KeysError(f"no trust domain is called {domain!r}; there are: {', '.join(cache_keys.DOMAINS)}")
    if builder not in keys.BUILDERS:
        raise KeysError(f"no builder is called {builder!r}; there are: {', '.join(keys.BUILDERS)}")
    state = State.find()
    made = keys.make(state, domain=domain, builder=builder)
    typer.echo(f"made {', '.join(made)}: {state.keys}" if made else f"already there: {state.keys}")
    typer.echo(f"verifiers take: --trust {state.trust}")


@app.command()
def show(as_json: AsJson = False) -> None:
    """Who is trusted for what, and until when. Shows no secret.

    Examples:

        helix keys show

        helix keys show --json
    """
    state, now = State.find(), datetime.now(UTC)
    rows = [
        {
            "role": key.role,
            "key_id": key.key_id,
            "builder": key.builder,
            "not_before": key.not_before.isoformat(),
            "not_after": key.not_after.isoformat(),
            "valid": key.holds(now),
        }
        for key in Trust.load(state.trust).keys
    ]
    lines = (
        f"{row['role']:10} {row['key_id']}  {row['builder']}  "
        f"{'valid' if row['valid'] else 'NOT VALID'} until {row['not_after']}"
        for row in rows
    )
    typer.echo(json.dumps(rows) if as_json else "\n".join(lines))
