"""From a release's record to a signed image in the registry; and whether that was done already.

Glue between the workshop, which makes the record, and `attest`, which signs. Platform code only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from helix_lineage.records import Record, Release
from helix_lineage.release import VerifiedRelease, verify_release
from helix_lineage.releases import read_bundle
from helix_lineage.store import Store
from helix_lineage.trust import Trust
from model_to_metal import attest, nix, registry
from model_to_metal.checkout import Checkout
from model_to_metal.errors import StageError
from model_to_metal.oci import Client
from model_to_metal.provenance import RELEASE


def sign(
    checkout: Checkout, state: State, release: Record, parents: Mapping[str, Record], tell: nix.Tell = nix.silent
) -> None:
    """Push the release's image by digest, attest it and write its bundle. Raises AttestError and others."""
    if not isinstance(release, Release):
        raise StageError(f"only a release is signed, not a {release.TYPE}")
    model, digest = str(release.parameters["model"]), str(release.parameters["image"])
    store = Store(state.store)
    layout = nix.build(f"{model}-image", checkout.root, state, tell=tell)
    chain = list(parents.values())
    with registry.serving(state) as address, Client(address) as client:
        image = registry.push_layout(client, registry.repository(model), layout, digest)
        evidence = attest.gather(chain, store, checkout.root)
        attest.attest_image(state, client, image, release, records=chain, evidence=evidence, tell=tell)


def is_signed(state: State, release: Record) -> bool:
    """Whether the bundle of this very release verifies now and the registry has its image."""
    model, digest = str(release.parameters["model"]), str(release.parameters["image"])
    try:
        if signed_release(state, model).release != release:
            return False
    except LineageError:
        return False
    with registry.serving(state) as address, Client(address) as client:
        return client.manifest(registry.repository(model), digest) is not None


def signed_release(state: State, model: str) -> VerifiedRelease:
    """The latest signed release of `model` on this machine, verified. Raises LineageError."""
    path = state.releases / model / attest.FILES[RELEASE]
    if not path.is_file():
        raise LineageError(f"{model} has no signed release yet", where=str(path), fix=f"helix run release {model}")
    return verify_release(read_bundle(path), Trust.load(state.trust), image=None, at=datetime.now(UTC))
