"""What `helix promote` and `helix rollback` share: options, the desk they work at, what they print."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.attestations.promotion import generation_of
from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from model_to_metal.cli._options import report
from model_to_metal.errors import GitopsError, PromotionRefused
from model_to_metal.gitops.promote import PromotionContext, PromotionResult
from model_to_metal.gitops.render import Renderer, check_model
from model_to_metal.gitops.repository import Repository
from model_to_metal.host import tools
from model_to_metal.host.checkout import Checkout
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client
from model_to_metal.supply_chain import keys
from model_to_metal.supply_chain.cosign import CosignSigner

Onto = Annotated[str, typer.Option(metavar="BRANCH", help="The branch that Argo CD follows, and its policies.")]
Key = Annotated[
    str | None,
    typer.Option(metavar="REFERENCE", help="The promoter's key, as cosign names it (a KMS); default: this machine's."),
]
CheckOnly = Annotated[
    bool, typer.Option("--check", help="Sign and write nothing: exit 1 unless the branch has these very bytes.")
]


@contextmanager
def opened(onto: str, *, key: str | None, trust: Path | None, check: bool) -> Iterator[PromotionContext]:
    """The desk of this checkout, with its registry running."""
    checkout, state = Checkout.find(), State.find()

    root = Trust.load(trust or state.trust)
    cosign = tools.ensure("cosign", state, report)
    renderer = Renderer.ready(state, report)
    repository, now = Repository(checkout.root), datetime.now(UTC)

    def sign(payload: bytes) -> bytes:
        if check:
            raise PromotionRefused("the branch does not hold this promotion", fix="run it without --check, and push")
        who = (
            keys.elsewhere(key, cosign, root, role=keys.PROMOTER, now=now)
            if key
            else keys.signer(state, role=keys.PROMOTER)
        )
        return CosignSigner(cosign, who).statement(payload)

    with artifacts.serving(state) as address, Client(address) as client:
        yield PromotionContext(
            repository=repository,
            base=repository.commit_of(onto),
            client=client,
            trust=root,
            cosign=cosign,
            sign=sign,
            check=lambda files, environment, model: check_model(renderer, files, environment, model),
            at=now,
            epoch=_epoch(),
            writes=not check,
        )


def show(done: PromotionResult, environment: str, model: str, onto: str, *, as_json: bool) -> None:
    """Print what was done, and what a person does next."""
    generation, release = generation_of(done.promotion), done.promotion.parents["release"]
    if as_json:
        said = {
            "model": model,
            "environment": environment,
            "changed": done.changed,
            "branch": done.branch,
            "commit": done.commit,
            "release": release,
            "promotion": done.promotion.digest,
            "generation": generation,
        }
        typer.echo(json.dumps(said))
    elif done.branch is None:
        typer.echo(f"{onto} has it already: {environment} runs {release} of {model} (generation {generation})")
    else:
        typer.echo(
            f"{'made' if done.changed else 'unchanged'}: {done.branch} at {done.commit[:12]}\n"
            f"{environment} would run {release} of {model} (generation {generation})\n"
            f"next: git push origin {done.branch}, and merge it into {onto}"
        )


def _epoch() -> datetime | None:
    """SOURCE_DATE_EPOCH, where it is set."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 11:  # the year 5138
        raise GitopsError(f"this is not a time in seconds: {text!r}", where="SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(text), UTC)
