"""The keys that a cluster's pipeline signs with: Kubernetes secrets, and who the trust root says they are.

A cluster may have keys of its own, whose private halves exist there alone (`make`); what it releases
is then its own, and an environment can ask for that. One that has none is lent this machine's
(`lend`): it builds, and the release is still the laptop's.
"""

from __future__ import annotations

import base64
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import TrustError
from helix_lineage.paths import State
from model_to_metal.errors import KeysError
from model_to_metal.pipeline.argo.kubernetes import Kubernetes, secret
from model_to_metal.supply_chain import cache_keys, keys
from model_to_metal.workflows.release import CACHE_SECRET, SIGNING_SECRET

LABEL, OWN, LENT = "helix.example/keys", "own", "lent"
"""Whose the keys in a secret are."""
_PUBLIC = f"{keys.ROLE}.pub"


def builder(cluster: Kubernetes, state: State) -> str | None:
    """Whom the cluster releases as, where it has keys of its own.

    Raises KeysError when this machine's trust root does not name them.
    """
    found = cluster.find("secret", SIGNING_SECRET)
    if found is None or (found["metadata"].get("labels") or {}).get(LABEL) != OWN:
        return None
    key_id = keys.describe(base64.b64decode(found["data"][_PUBLIC]))[1]
    try:
        return Trust.load(state.trust).key_for(keys.ROLE, datetime.now(UTC), key_id).builder
    except TrustError as error:
        raise KeysError(
            f"the trust root does not name the cluster's key: {error.what}", where=str(state.trust),
            fix="helix cluster keys --replace",
        ) from error  # fmt: skip


def make(cluster: Kubernetes, state: State, name: str) -> str:
    """Give the cluster keys of its own, as the builder `name`; gives the key's id.

    Their private halves are written nowhere here; this machine's trust root names them afterwards.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = State(Path(folder) / "state")
        own.root.mkdir()
        state.tools.mkdir(exist_ok=True)
        own.tools.symlink_to(state.tools)
        keys.make(own, domain=cache_keys.RELEASE, builder=name)
        rows = [row for row in json.loads(own.trust.read_bytes())["keys"] if row["role"] in (keys.ROLE, keys.CACHE)]
        trust = json.dumps({"version": 1, "keys": rows}, indent=2).encode()
        _put(cluster, own, trust, OWN)
        key_id = keys.signer(own).key_id
    _name(state, rows)
    return key_id


def lend(cluster: Kubernetes, state: State) -> None:
    """Give a cluster without keys of its own this machine's. Raises KeysError when there are none."""
    keys.signer(state)
    keys.cache_signer(state)
    _put(cluster, state, state.trust.read_bytes(), LENT)


def _put(cluster: Kubernetes, state: State, trust: bytes, whose: str) -> None:
    def read(name: str) -> bytes:
        return (state.keys / name).read_bytes()

    files = {f"{keys.ROLE}.key": read(f"{keys.ROLE}.key"), _PUBLIC: read(_PUBLIC), state.trust.name: trust}
    cache = {"cache.key": read(f"{keys.CACHE}.key"), state.trust.name: trust}
    labels = {LABEL: whose}
    cluster.apply(secret(SIGNING_SECRET, files, labels), secret(CACHE_SECRET, cache, labels))


def _name(state: State, rows: list[dict[str, Any]]) -> None:
    """Add keys to this machine's trust root."""
    root: dict[str, Any] = json.loads(state.trust.read_bytes()) if state.trust.exists() else {"version": 1, "keys": []}
    known = {row["key_id"] for row in root["keys"]}
    root["keys"] += [row for row in rows if row["key_id"] not in known]
    state.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = state.trust.with_name(f".{state.trust.name}.half")
    half.write_text(json.dumps(root, indent=2) + "\n")
    half.replace(state.trust)
