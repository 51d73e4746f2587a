"""What there is about one prediction. Where `trace` refuses, this says of each part whether it could be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from helix_lineage.directory.view import View, Witnessed, witnessed
from helix_lineage.errors import LineageError, PredictionNotFound
from helix_lineage.promotion import VerifiedPromotion, claimed_promotion, verify_promotion
from helix_lineage.releases import FoundRelease, Sources, find_release
from helix_lineage.shard.entries import PredictionEntry
from helix_lineage.shard.header import ShardHeader, parse_prediction_id
from helix_lineage.shard.reader import Inclusion, Log, Shard
from helix_lineage.trace import payload_states

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
    """None when it was served without one, or no bundle of it was given."""
    directory: Witnessed | None = None
    """None when no directory was asked."""


def gather(
    log: Log, prediction: str, sources: Sources, promotions: Sequence[Path] = (), directory: View | None = None
) -> Evidence:
    """Look at every part. Raises PredictionNotFound when there is no such prediction, ShardError for a malformed id."""
    name, sequence = parse_prediction_id(prediction)
    shard = _part(lambda: log.shard(name))
    if isinstance(shard, Problem):
        return Evidence(prediction, sequence, shard, None, None, {}, None, None)
    inclusion = _part(lambda: shard.inclusion(sequence))
    entry = _entry(shard, sequence, sound=isinstance(inclusion, Inclusion))
    # Commitments of an entry that nobody signed prove nothing, but what they say is shown all the same.
    payload = payload_states(shard, sequence, entry) if isinstance(entry, PredictionEntry) else {}
    found = None if shard.header.release is None else _part(lambda: find_release(shard, sources))
    promotion = _promotion(shard.header, found, sources, promotions)
    said = None if directory is None else witnessed(directory, shard.header, sequence, name)
    return Evidence(prediction, sequence, shard.header, entry, inclusion, payload, found, promotion, said)


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
            raise  # a signed entry of another kind: the id is no prediction's
        return Problem(str(error))
    except LineageError as error:
        return Problem(str(error))


def _promotion(
    header: ShardHeader, found: FoundRelease | Problem | None, sources: Sources, promotions: Sequence[Path]
) -> SignedPromotion | Problem | None:
    """The bundle among the given files that holds the header's promotion, verified as of the header's start."""
    for path in promotions if header.promotion is not None else ():
        try:
            bundle = path.read_bytes()
            if claimed_promotion(bundle).digest != header.promotion:
                continue
        except (OSError, LineageError):
            continue
        if sources.trust is None or not isinstance(found, FoundRelease) or found.verified is None:
            return Problem("the promotion is not checked: its release is not verified")
        at = datetime.fromtimestamp(header.started_ns / 1e9, UTC)
        try:
            verified = verify_promotion(bundle, sources.trust, found.verified, environment=None, at=at)
        except LineageError as error:
            return Problem(str(error))
        if verified.generation != header.generation:
            return Problem(f"the header says generation {header.generation}, the promotion {verified.generation}")
        return SignedPromotion(verified, bundle)
    return None
