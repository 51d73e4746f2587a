"""`helix promote`: propose, as one commit on a branch, that an environment runs a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.formats.named import read_named
from helix_lineage.paths import State
from model_to_metal.cli import _options, _promotion
from model_to_metal.errors import GitopsError
from model_to_metal.gitops import layout, promote as promoting
from model_to_metal.supply_chain import attest, provenance

app = typer.Typer()


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    environment: Annotated[str, typer.Option("--to", metavar="ENVIRONMENT", help="A folder of environments/.")],
    *,
    release: Annotated[Path | None, typer.Option(metavar="FILE", help="release.sigstore.json")] = None,
    image: Annotated[str | None, typer.Option(metavar="DIGEST", help="The release that this image carries.")] = None,
    onto: _promotion.Onto = "main",
    key: _promotion.Key = None,
    trust: _options.TrustFile = None,
    check: _promotion.CheckOnly = False,
    as_json: _options.AsJson = False,
) -> None:
    """Verify a release and propose, as one commit on a branch, that an environment runs it.

    The release: that of --release or --image; else, where the environment comes after another,
    the one that runs there; else the latest that was signed on this machine. Policies, deny-list
    and what runs now are those of the branch --onto. Your working tree and branch are not touched.

    Exit status: 0 proposed, or nothing to do; 1 refused, with the reason; 2 it could not be done.

    Examples:

        helix promote MODEL --to staging

        helix promote MODEL --to production --onto origin/main --json

        helix promote MODEL --to staging --check
    """
    named = None if release is None else read_named(release, "the release to promote")
    with _promotion.opened(onto, key=key, trust=trust, check=check) as opened:
        bundle = _bundle(opened, model, environment, named, image)
        done = promoting.promote(opened, bundle, model, environment)
    _promotion.show(done, environment, model, onto, as_json=as_json)


def _bundle(
    opened: promoting.PromotionContext, model: str, environment: str, named: bytes | None, image: str | None
) -> bytes:
    """The release that is meant."""
    if image is not None:
        return promoting.carried(opened, model, image)
    if named is not None:
        return named
    after = opened.policy(environment).after
    if after is not None:
        found = opened.folder(after, model).get(layout.RELEASE)
        if found is not None:
            return found
    path = State.find().releases / layout.name(model) / attest.FILES[provenance.RELEASE]
    if not path.is_file():
        raise GitopsError("there is no signed release to promote", where=str(path), fix=f"helix run release {model}")
    return read_named(path, "the signed release to promote")
