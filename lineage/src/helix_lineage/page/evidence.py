"""What there is about one prediction. Where `trace` refuses, this says of each part whether it could be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from helix_lineage.attestations.promotion import VerifiedPromotion
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory.view import View, WitnessedTimes, witnessed
from helix_lineage.errors import LineageError, PredictionNotFound
from helix_lineage.evidence.promotions import bundle_of, find_promotion
from helix_lineage.evidence.releases import FoundRelease, ReleaseSources, find_release
from helix_lineage.evidence.trace import payload_states
from helix_lineage.evidence.values import Values, stored
from helix_lineage.shard.entries import PredictionEntry
from helix_lineage.shard.header import ShardHeader, parse_prediction_id
from helix_lineage.shard.reader import Inclusion, Log, Shard

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a part cannot be shown."""

    what: str


@dataclass(frozen=True, slots=True)
class SignedPromotion:
    """The promotion that the shard's header names, and its bundle."""

    verified: VerifiedPromotion
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """All parts of one prediction's chain; None: there is nothing to look for."""

    id: str
    sequence: int
    header: ShardHeader | Problem
    entry: PredictionEntry | Problem | None
    inclusion: Inclusion | Problem | None
    payload: dict[str, str]
    """`input` and `output` → `kept`, `erased`, or what is wrong."""
    found: FoundRelease | Problem | None
    """None when the shard was served without a release."""
    promotion: SignedPromotion | Problem | None
    """None when it was served without one."""
    directory: WitnessedTimes | None
    """None when no directory was asked."""
    trust: Trust | None = None
    """What signatures were checked with."""
    values: Values = field(default_factory=Values)
    """What was asked and answered, as far as it is kept."""


def gather(log: Log, prediction: str, sources: ReleaseSources, directory: View | None = None) -> Evidence:
    """Look at every part. Raises PredictionNotFound when there is no such prediction, ShardError for a malformed id."""
    name, sequence = parse_prediction_id(prediction)
    shard = _part(lambda: log.shard(name))
    if isinstance(shard, Problem):
        return Evidence(prediction, sequence, shard, None, None, {}, None, None, None, sources.trust)
    inclusion = _part(lambda: shard.inclusion(sequence))
    entry = _entry(shard, sequence, sound=isinstance(inclusion, Inclusion))
    # Commitments of an entry that nobody signed prove nothing, but what they say is shown all the same.
    payload = payload_states(shard, sequence, entry) if isinstance(entry, PredictionEntry) else {}
    found = None if shard.header.release is None else _part(lambda: find_release(shard, sources))
    promotion = _promotion(shard, found, sources)
    said = None if directory is None else witnessed(directory, shard.header, sequence, shard.id)
    values = stored(shard, sequence, entry) if isinstance(entry, PredictionEntry) else Values()
    return Evidence(
        prediction, sequence, shard.header, entry, inclusion, payload, found, promotion, said, sources.trust, values
    )


def _part(look: Callable[[], Found]) -> Found | Problem:
    try:
        return look()
    except PredictionNotFound:
        raise
    except LineageError as error:
        return Problem(str(error))


def _entry(shard: Shard, sequence: int, *, sound: bool) -> PredictionEntry | Problem:
    try:
        return shard.prediction(sequence)
    except PredictionNotFound as error:
        if sound:
            raise  # a signed entry of another kind: the id is not a prediction's
        return Problem(str(error))
    except LineageError as error:
        return Problem(str(error))


def _promotion(
    shard: Shard, found: FoundRelease | Problem | None, sources: ReleaseSources
) -> SignedPromotion | Problem | None:
    """The promotion that the header names, from the shard's copy."""
    release = found.verified if isinstance(found, FoundRelease) else None
    verified = _part(lambda: find_promotion(shard, sources.trust, release))
    if verified is None or isinstance(verified, Problem):
        return verified
    return SignedPromotion(verified, bundle_of(shard))
