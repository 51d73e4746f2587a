"""Promotions of shards: check the one that a header names, and say what a log has seen promoted.

- The shard's own copy holds under the trust root, as of the header's start, and is of the verified release.
- Its digest and its generation are those of the header.
- What a log has seen is what its headers name, whoever signed it; a copy that can't be read counts everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from helix_lineage.attestations.promotion import VerifiedPromotion, claimed_promotion, verify_promotion
from helix_lineage.attestations.release import VerifiedRelease
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, TrustError
from helix_lineage.formats import untrusted
from helix_lineage.shard.reader import Log, Shard


@dataclass(frozen=True, slots=True)
class NewestPromotion:
    """The newest promotion that a log's headers name."""

    generation: int
    promotion: str
    """Digest of the promotion."""
    shard: str


def find_promotion(shard: Shard, trust: Trust | None, release: VerifiedRelease | None) -> VerifiedPromotion | None:
    """The promotion that the shard's header names, from the shard's own copy; None in mode `local`.

    Signatures are checked as of the header's start, which is the host's claim. Raises LineageError saying
    what does not hold.
    """
    header = shard.header
    if header.promotion is None:
        return None
    if trust is None:
        raise TrustError("no trust root was given", where=header.promotion)
    if release is None:
        raise TrustError("the release that was promoted is not verified", where=header.promotion)
    at = datetime.fromtimestamp(header.started_ns / 1e9, UTC)
    found = verify_promotion(bundle_of(shard), trust, release, environment=None, at=at)
    if found.promotion.digest != header.promotion:
        raise TrustError(f"the bundle's promotion is {found.promotion.digest}", where=header.promotion)
    if found.generation != header.generation:
        raise TrustError(f"generation {header.generation} in the header, {found.generation} in the promotion")
    return found


def newest_seen(log: Log, model: str, environment: str) -> NewestPromotion | None:
    """The newest promotion of a model in an environment among the shards' headers. Damaged shards are for `audit`.

    Nobody's signature is checked: a header that claims too new a generation makes servers refuse, not serve.
    """
    newest: NewestPromotion | None = None
    for name in log.shard_ids():
        try:
            shard = log.shard(name)
        except LineageError:
            continue
        header = shard.header
        if header.promotion is None or header.model != model or _environment_of(shard) not in (None, environment):
            continue
        if newest is None or header.generation > newest.generation:
            newest = NewestPromotion(header.generation, header.promotion, name)
    return newest


def _environment_of(shard: Shard) -> str | None:
    """Where the shard's promotion runs; None when its copy does not say, which counts as everywhere."""
    try:
        promotion = claimed_promotion(bundle_of(shard))
    except LineageError:
        return None
    return str(promotion.parameters["environment"]) if promotion.digest == shard.header.promotion else None


def bundle_of(shard: Shard) -> bytes:
    """The shard's own copy of the promotion, unverified. Raises TrustError when it cannot be read."""
    try:
        return untrusted.read(shard.folder.promotion, limit=untrusted.MAX_BUNDLE_BYTES)
    except OSError as error:
        path = str(shard.folder.promotion)
        raise TrustError(f"cannot read the promotion: {error.strerror}", where=path) from error
