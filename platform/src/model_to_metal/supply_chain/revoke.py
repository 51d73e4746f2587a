"""Revoke a release, promotion, image or key: signed by the revoker, and put into the directory's log.

Nothing that was served changes; traces and audits carry the mark, and the directory takes no new
shard of what is revoked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from helix_lineage.attestations import revocation
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory.client import DirectoryClient
from helix_lineage.formats.canonical import dumps
from helix_lineage.records.chain import Revocation
from model_to_metal.supply_chain import provenance

Sign = Callable[[bytes], bytes]
"""A statement's bytes → its signed bundle."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation that a directory holds."""

    revocation: Revocation
    bundle: bytes
    index: int
    """Its entry."""
    origin: str
    """The directory."""


def revoke(
    client: DirectoryClient, trust: Trust, sign: Sign, *, kind: str, target: str, since: datetime, reason: str
) -> Revoked:
    """Sign and submit. Raises LineageError when it is malformed, or when the directory does not take it."""
    log = client.latest()
    record = Revocation(
        parameters={
            "kind": kind,
            "target": target,
            "since": since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "index": log.size,
            "reason": reason,
        }
    )
    revocation.check(record)
    said = {"revocation": record.to_json()}
    bundle = sign(dumps(provenance.statement(revocation.PREDICATE_TYPE, said, name=kind, image=target)))
    revocation.verify_revocation(bundle, trust, at=datetime.now(UTC))  # what was signed must convince others
    receipt = client.submit(bundle)
    return Revoked(record, bundle, receipt.index, log.origin)
