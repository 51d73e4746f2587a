"""From a release's record to a signed image in the registry; and whether that was done already.

Glue between the workshop, which makes the record, and `attest`, which signs. Platform code only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.evidence.releases import read_bundle
from helix_lineage.paths import State
from helix_lineage.records.chain import Record, Release
from helix_lineage.records.store import RecordStore
from model_to_metal.errors import StageError
from model_to_metal.hermetic import nix
from model_to_metal.host.checkout import Checkout
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client
from model_to_metal.supply_chain import attest
from model_to_metal.supply_chain.provenance import RELEASE


def sign(
    checkout: Checkout, state: State, release: Record, parents: Mapping[str, Record], report: nix.Progress = nix.silent
) -> None:
    """Push the release's image by digest, attest it and write its bundle. Raises AttestError and others."""
    if not isinstance(release, Release):
        raise StageError(f"only a release is signed, not a {release.TYPE}")
    model, digest = str(release.parameters["model"]), str(release.parameters["image"])
    store = RecordStore(state.store)
    layout = nix.build(f"{model}-image", checkout.root, state, report=report)
    chain = list(parents.values())
    with artifacts.serving(state) as address, Client(address) as client:
        image = artifacts.push_layout(client, artifacts.repository(model), layout, digest)
        evidence = attest.gather(chain, store, checkout.root)
        attest.attest_image(state, client, image, release, records=chain, evidence=evidence, report=report)


def is_signed(state: State, release: Record) -> bool:
    """Whether the bundle of this very release verifies now and the registry has its image."""
    model, digest = str(release.parameters["model"]), str(release.parameters["image"])
    try:
        if signed_release(state, model).release != release:
            return False
    except LineageError:
        return False
    with artifacts.serving(state) as address, Client(address) as client:
        return client.manifest(artifacts.repository(model), digest) is not None


def signed_release(state: State, model: str) -> VerifiedRelease:
    """The latest signed release of `model` on this machine, verified. Raises LineageError."""
    path = state.releases / model / attest.FILES[RELEASE]
    if not path.is_file():
        raise LineageError(f"{model} has no signed release yet", where=str(path), fix=f"helix run release {model}")
    return verify_release(read_bundle(path), Trust.load(state.trust), image=None, at=datetime.now(UTC))
