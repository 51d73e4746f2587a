"""`helix gitops`: is what Argo CD would make of this checkout what our rules allow?"""

from __future__ import annotations

import json

import typer

from helix_lineage.formats.untrusted import read
from helix_lineage.paths import State
from model_to_metal.cli._options import AsJson, report
from model_to_metal.gitops import layout, succession
from model_to_metal.gitops.manifests import ManifestFault
from model_to_metal.gitops.render import Renderer, check_all
from model_to_metal.gitops.repository import Repository
from model_to_metal.gitops.tree_rules import MAX_FILE_BYTES
from model_to_metal.host.checkout import Checkout

app = typer.Typer(name="gitops", help="What the cluster runs: gitops/argocd.", no_args_is_help=True)


@app.command()
def check(as_json: AsJson = False) -> None:
    """Render gitops/argocd of the working tree with kustomize; hold schemas and our rules against it.

    A sample model stands for those that are not promoted yet. A promotion that is older than one in
    Git's history is a fault too (generation regression). Exit status 1 when a rule is broken.

    Examples:

        helix gitops check

        helix gitops check --json
    """
    checkout = Checkout.find()
    renderer = Renderer.ready(State.find(), report)
    files, faults = _read(checkout)
    repository = Repository(checkout.root)
    # What was promoted last is in the history, whatever the working tree says now.
    faults += check_all(renderer, files) + succession.check(repository, repository.commit_of("HEAD"), files)
    total = f"{len(faults)} faults" if faults else f"{layout.ROOT} renders, and no rule is broken"
    said = {"passed": not faults, "faults": [fault.to_json() for fault in faults]}
    typer.echo(json.dumps(said) if as_json else "\n".join([*map(str, faults), total]))
    if faults:
        raise typer.Exit(1)


def _read(checkout: Checkout) -> tuple[dict[str, bytes], list[ManifestFault]]:
    """The files of the working tree (path → bytes), and faults of what is none."""
    files, odd = dict[str, bytes](), list[ManifestFault]()
    for path in checkout.files(layout.ROOT):
        try:
            files[path] = read(checkout.root / path, limit=MAX_FILE_BYTES)
        except OSError as error:
            # A link, or another repository's folder, would show kustomize one thing here and Argo CD another there.
            why = f"this is not a regular file that may be: {error.strerror}"
            odd.append(ManifestFault(path, "no-links", why, "commit the file itself"))
    return files, odd
