"""Verify a signed promotion: who says that a release runs in an environment, and since when (FORMAT.md 6.1). Pure.

- A promoter's key signed it, valid at the time asked about.
- The predicate is one promotion.
- It has one subject: the release's image.
- It names the release and its model.
- It names an environment, and the one that is asked about.
- Its generation is a number from 1 on; only the first has no previous promotion; none is older than the newest known.
- Succession: its generation is one more than that of the promotion before, which it names, of the same model and
  environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from helix_lineage.attestations import dsse
from helix_lineage.attestations.release import VerifiedRelease, refuse
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import RecordError, TrustError
from helix_lineage.formats.canonical import SAFE_INTEGER, Json
from helix_lineage.records.chain import Promotion, embedded

PREDICATE_TYPE = "https://helix.example/promotion/v1"


@dataclass(frozen=True, slots=True)
class VerifiedPromotion:
    """A promotion whose signature holds, and that is about the given release."""

    promotion: Promotion
    key_id: str
    """The promoter's key."""
    builder: str
    """Who works with that key."""

    @property
    def environment(self) -> str:
        """Where the release runs."""
        return str(self.promotion.parameters["environment"])

    @property
    def generation(self) -> int:
        """1 for the first promotion of a model in an environment, one more for each later one."""
        return generation_of(self.promotion)


def verify_promotion(
    bundle: bytes, trust: Trust, release: VerifiedRelease, *, environment: str | None, at: datetime, newest: int = 0
) -> VerifiedPromotion:
    """Check a promotion bundle. Raises TrustError or RecordError, naming the field that does not hold.

    Args:
        release: what must have been promoted, verified (`helix_lineage.attestations.release.verify_release`).
        environment: where this must be, or None for whatever the promotion names.
        at: when the promoter's key must hold.
        newest: the newest generation that is known; an older promotion is refused.
    """
    statement = dsse.open_statement(bundle, trust, role="promoter", predicate_type=PREDICATE_TYPE, at=at)
    promotion = parse_predicate(statement.predicate)
    if len(statement.subjects) != 1:
        raise TrustError(f"the promotion statement has {len(statement.subjects)} subjects, not one")
    image, subject = release.statement_subject.digest, statement.subjects[0].digest
    if subject != image:
        refuse("the promotion's subject", subject, "the release's image", image)
    if promotion.parents["release"] != release.release.digest:
        refuse("promotion.parents.release", promotion.parents["release"], "the release", release.release.digest)
    model, released = promotion.parameters["model"], release.release.parameters["model"]
    if model != released:
        refuse("promotion.parameters.model", model, "the release's model", released)
    said = promotion.parameters["environment"]
    if not isinstance(said, str) or not said:
        raise RecordError(f"promotion.parameters.environment is {said!r}, not a name")
    if environment is not None and said != environment:
        refuse("promotion.parameters.environment", said, "this environment", environment)
    generation = generation_of(promotion)
    if generation < newest:
        raise TrustError(f"generation regression: the promotion is generation {generation}, but {newest} was seen")
    return VerifiedPromotion(promotion, statement.signer.key_id, statement.signer.builder)


def parse_predicate(predicate: Mapping[str, Json]) -> Promotion:
    """The promotion in a statement's predicate. Raises TrustError or RecordError; who signed it is not asked here."""
    if set(predicate) != {"promotion"}:
        raise TrustError('the predicate is {"promotion": …}')
    return embedded(predicate["promotion"], Promotion, "predicate.promotion")


def claimed_promotion(bundle: bytes) -> Promotion:
    """The promotion that a bundle speaks of; no signature is checked. Raises TrustError or RecordError."""
    return parse_predicate(dsse.claimed_predicate(bundle))


def generation_of(promotion: Promotion) -> int:
    """The generation, which agrees with whether there was one before. Raises RecordError."""
    generation = promotion.parameters["generation"]
    if type(generation) is not int or not 1 <= generation < SAFE_INTEGER:
        raise RecordError(f"promotion.parameters.generation is {generation!r}, not a number from 1 on")
    if (generation == 1) == ("previous" in promotion.parents):
        has = "a previous promotion" if generation == 1 else "no previous promotion"
        raise RecordError(f"promotion.parents.previous: generation {generation} has {has}")
    return generation


def check_succession(promotion: Promotion, previous: Promotion | None) -> None:
    """Does `promotion` come right after `previous` (None: nothing before)? Raises RecordError or TrustError."""
    generation = generation_of(promotion)
    before = 0 if previous is None else generation_of(previous)
    if generation != before + 1:
        raise RecordError(f"the promotion is generation {generation}, but the one before it is {before}")
    if previous is None:
        return
    if promotion.parents["previous"] != previous.digest:
        refuse("promotion.parents.previous", promotion.parents["previous"], "the one before", previous.digest)
    for name in ("model", "environment"):
        if promotion.parameters[name] != previous.parameters[name]:
            ours, theirs = promotion.parameters[name], previous.parameters[name]
            refuse(f"promotion.parameters.{name}", ours, "that of the one before", theirs)
