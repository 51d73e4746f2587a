"""`helix rollback`: propose, as one commit on a branch, that an environment runs what it ran before."""

from __future__ import annotations

from typing import Annotated

import typer

from model_to_metal.cli import _options, _promotion
from model_to_metal.gitops import rollback as rolling

app = typer.Typer()


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    environment: Annotated[str, typer.Option("--in", metavar="ENVIRONMENT", help="A folder of environments/.")],
    *,
    reason: Annotated[str, typer.Option("--because", metavar="TEXT", help="For the deny-list.")] = "rolled back",
    onto: _promotion.Onto = "main",
    key: _promotion.Key = None,
    trust: _options.TrustFile = None,
    check: _promotion.CheckOnly = False,
    as_json: _options.AsJson = False,
) -> None:
    """Propose, as one commit on a branch, that an environment runs what it ran before, and nothing the bad release.

    The commit reverts release and image to the newest earlier ones that may still run, under a new
    promotion, and puts the present release and its image onto the deny-list, which `helix promote`
    honours in every environment. Your working tree and branch are not touched.

    Exit status: 0 proposed; 1 refused, with the reason; 2 it could not be done.

    Examples:

        helix rollback MODEL --in staging

        helix rollback MODEL --in production --because "p99 doubled" --onto origin/main
    """
    with _promotion.opened(onto, key=key, trust=trust, check=check) as opened:
        done = rolling.rollback(opened, model, environment, reason=reason)
    _promotion.show(done, environment, model, onto, as_json=as_json)
