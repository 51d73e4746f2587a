"""`helix lineage …`: the commands of `helix_lineage`, with this checkout's registry, keys and directory at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Container
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.attestations.release import VerifiedRelease
from helix_lineage.attestations.trust import Trust
from helix_lineage.cli.main import app as lineage
from helix_lineage.directory.client import DirectoryClient
from helix_lineage.directory.rules import DirectoryState
from helix_lineage.directory.source import open_source
from helix_lineage.directory.view import load
from helix_lineage.errors import RecordError
from helix_lineage.formats.named import check_writable, write_named
from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson, report
from model_to_metal.host import tools
from model_to_metal.local import directory as local
from model_to_metal.registry import artifacts
from model_to_metal.supply_chain import keys, revoke as revoking
from model_to_metal.supply_chain.cosign import CosignSigner

app = typer.Typer(name="lineage", help=lineage.info.help, no_args_is_help=True)
app.registered_commands.extend(lineage.registered_commands)
app.registered_groups.extend(lineage.registered_groups)


@app.command()
def revoke(
    kind: Annotated[str, typer.Argument(help="release, promotion, image or key.")],
    target: Annotated[str, typer.Argument(metavar="DIGEST", help="Its digest, or the key's id.")],
    *,
    reason: Annotated[str, typer.Option(help="Why, in a sentence for people.")],
    since: Annotated[str | None, typer.Option(metavar="TIME", help="From when on it is revoked. Default: now.")] = None,
    directory: Annotated[
        str | None, typer.Option("--directory", metavar="URL", help="A running directory. Default: this checkout's.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="REFERENCE", help="The revoker's key, as cosign names it (a KMS).")
    ] = None,
    keep: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the signed bundle there too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign that something is revoked, and put that into the directory's log.

    Nothing that was served changes: `trace` and `audit` with --directory carry the mark, and no new
    shard of it is registered. A revocation is not taken back.

    Exit status: 0 the directory holds it; 2 it does not, with the reason.

    Examples:

        helix lineage revoke release sha256:… --reason "wrong weights"

        helix lineage revoke key sha256:… --since 2026-05-01T00:00:00Z --reason "the laptop was stolen" --json
    """
    if keep is not None:
        check_writable(keep, "the revocation")
    state = State.find()
    root, when = Trust.load(state.trust), _time(since)
    cosign = tools.ensure("cosign", state, report)

    def sign(payload: bytes) -> bytes:
        now = datetime.now(UTC)
        who = (
            keys.elsewhere(key, cosign, root, role=keys.REVOKER, now=now)
            if key
            else keys.signer(state, role=keys.REVOKER)
        )
        return CosignSigner(cosign, who).statement(payload)

    with ExitStack() as stack:
        url = directory or stack.enter_context(local.running(state))
        client = DirectoryClient(url, root)
        stack.callback(client.close)
        done = revoking.revoke(client, root, sign, kind=kind, target=target, since=when, reason=reason)
        source = open_source(url)
        stack.callback(source.close)
        known = _is_known(load(source, root, datetime.now(UTC), audited=True).book, root, kind, target)
    if keep is not None:
        write_named(keep, done.bundle, "the revocation")
    said = {"revocation": done.revocation.to_json(), "known": known, "directory": done.origin, "index": done.index}
    text = f"revoked: the {kind} {target}, as of {when.isoformat()}\nentry {done.index} of {done.origin}"
    if not known:
        text += f"\nnote: no {kind} of that digest is known there; check it, and revoke the one that was meant"
    typer.echo(json.dumps(said) if as_json else text)


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecordError(f"not a time as in 2026-01-31T00:00:00Z: {text!r}", where="--since") from error
    if found.tzinfo is None:
        raise RecordError(f"the time has no zone (write Z): {text!r}", where="--since")
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        raise RecordError(f"not a time of the years 1 to 9999: {text!r}", where="--since") from error


def _is_known(book: DirectoryState, trust: Trust, kind: str, target: str) -> bool:
    """Does the directory (of a key: the trust root) know the thing? A misspelt digest revokes nothing that there is."""
    images = {
        known.verified.release.parameters["image"]
        for known in book.releases.values()
        if isinstance(known.verified, VerifiedRelease)
    }
    known: Container[object] = {
        "release": book.releases, "promotion": book.promotions, "image": images,
        "key": {key.key_id for key in trust.keys},
    }[kind]  # fmt: skip
    return target in known


@app.callback()
def _prepare(context: typer.Context) -> None:
    """Serve the checkout's registry while a replay runs: it may have to pull an image."""
    if context.invoked_subcommand != "replay" or "HELIX_REGISTRY" in os.environ:
        return
    state = State.find()
    if state.registry.is_dir():
        # The option --registry reads this variable, after this callback.
        os.environ["HELIX_REGISTRY"] = context.with_resource(artifacts.serving(state))
        context.call_on_close(lambda: os.environ.pop("HELIX_REGISTRY", None))
