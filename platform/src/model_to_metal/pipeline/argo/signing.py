"""The step that signs: from the records of a release to a signed image in the registry.

Platform code alone runs here, under a service account of its own; the key comes from a Kubernetes
secret that no other step's pod is given. Signing again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from helix_lineage.paths import State
from helix_lineage.records.chain import Record, Release
from helix_lineage.records.store import RecordStore
from model_to_metal.errors import AttestError
from model_to_metal.pipeline.argo.exchange import Exchange
from model_to_metal.pipeline.argo.order import Order
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Image
from model_to_metal.stages import interface as stages
from model_to_metal.stages.interface import StageResult, StageSpec, StageTask
from model_to_metal.supply_chain import attest, keys

SIGNING_KEY = Path("/var/run/helix/signing-key")
"""Where the key that signs releases is mounted, with the trust root that names it."""
TOOLS = Path("/opt/helix/tools")
"""cosign, in the pipeline image."""


def sign(
    spec: StageSpec, order: Order, parents: Mapping[str, Record], exchange: Exchange, root: Path
) -> tuple[Record, bool]:
    """Make the release's record, and sign what is not signed yet; gives it, and whether anything was.

    Raises AttestError when the order is not for a release, or the chain does not hold.
    """
    if not order.releasing:
        raise AttestError("the order is not for a release", where=order.model)
    state = _state(root)
    plan = order.stages[spec.name].plan
    task = StageTask(model=root, output=root / "output", parents=parents, plan=plan)
    found = stages.load(spec.name).make(task)
    release = stages.record(spec, StageResult(plan=plan, parents=parents, found=found))
    if not isinstance(release, Release):
        raise AttestError(f"only a release is signed, not a {release.TYPE}")
    store = RecordStore(state.store)
    for digest in order.evidence:
        exchange.save(digest, root / "blob")
        store.put_file(root / "blob", digest)
    chain = list(parents.values())
    evidence = attest.gather(chain, store, root)
    image = Image(exchange.client.address, artifacts.repository(order.model), str(release.parameters["image"]))
    done = attest.attest_image(state, exchange.client, image, release, records=chain, evidence=evidence)
    return release, bool(done.signed)


def has_image(exchange: Exchange, model: str, record: Record) -> bool:
    """Does the registry hold the image that an image build names?"""
    digest = str(record.parameters["image"])
    return exchange.client.manifest(artifacts.repository(model), digest) is not None


def _state(root: Path) -> State:
    """The folders that signing works in, with the mounted keys."""
    state = State(root)
    state.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.tools.symlink_to(TOOLS)
    for name in (f"{keys.ROLE}.key", f"{keys.ROLE}.pub", state.trust.name):
        target = state.keys / name
        target.touch(mode=0o600)
        target.write_bytes((SIGNING_KEY / name).read_bytes())
    return state
