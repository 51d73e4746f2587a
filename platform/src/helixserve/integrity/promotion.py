"""Was this release promoted into this environment, and not replaced since?

`HELIX_ENVIRONMENT` decides: a server that is told where it runs needs a promotion for there, and one
that is not told takes none, for it could not say whether it is the right one. So a manifest that
forgets the variable gives a server that refuses, and no unpromoted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from helix_lineage.attestations.promotion import VerifiedPromotion, verify_promotion
from helix_lineage.attestations.release import VerifiedRelease
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, explaining
from helix_lineage.evidence.promotions import newest_seen
from helix_lineage.shard.reader import Log
from helixserve.errors import NotReadyError
from helixserve.integrity import read
from helixserve.settings import BUNDLE_BYTES, Settings


@dataclass(frozen=True, slots=True)
class VerifiedHere:
    """A promotion that holds here and now."""

    verified: VerifiedPromotion
    bundle: bytes
    """As read."""


def load(settings: Settings, trust: Trust, release: VerifiedRelease, at: datetime) -> VerifiedHere | None:
    """The promotion that the settings name; None outside any environment. Raises NotReadyError naming the field."""
    environment = settings.environment
    if environment is None:
        if settings.promotion.exists():
            raise NotReadyError(
                f"a promotion is mounted at {settings.promotion}, but nobody says for which environment",
                where="HELIX_ENVIRONMENT",
            )
        return None
    where = f"HELIX_PROMOTION = {settings.promotion}"
    bundle = read.read(settings.promotion, where=where, what="the promotion", limit=BUNDLE_BYTES, follow=True)
    try:
        verified = verify_promotion(bundle, trust, release, environment=environment, at=at)
    except LineageError as error:
        raise NotReadyError(
            f"the promotion does not hold: {error.what}", where=error.where or "promotion", fix=error.fix
        ) from error
    _check_newest(settings, verified)
    return VerifiedHere(verified, bundle)


def _check_newest(settings: Settings, found: VerifiedPromotion) -> None:
    """No shard of this log names a later promotion, or another of the same generation. Raises NotReadyError."""
    model = str(found.promotion.parameters["model"])
    with explaining(NotReadyError, "cannot read the log", where=str(settings.log)):
        seen = newest_seen(Log(settings.log), model, found.environment)
    if seen is None or seen.generation < found.generation or seen.promotion == found.promotion.digest:
        return
    what = "generation regression" if seen.generation > found.generation else "two promotions of one generation"
    raise NotReadyError(
        f"{what}: the promotion {found.promotion.digest} is generation {found.generation}, but the shard {seen.shard} "
        f"served {seen.promotion}, generation {seen.generation}, in {found.environment}",
        where="promotion.parameters.generation",
        fix="mount the newest promotion of the environment; an older release comes back with: "
        f"helix rollback {model} --in {found.environment}",
    )
