"""What Git remembers of promotions: the newest generation of a model in an environment, and what went back behind it.

Promotions only ever grow. An old one that is put back (a reverted commit, a copied folder, a
rewritten file) has a valid signature, and its generation tells: *generation regression*.

- What runs has a higher generation than any that Git remembers, or is the one of the highest.
- There are no two promotions of one generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helix_lineage.attestations import dsse
from helix_lineage.attestations.promotion import claimed_promotion, generation_of
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.records.chain import Promotion
from model_to_metal.gitops import layout
from model_to_metal.gitops.manifests import ManifestFault
from model_to_metal.gitops.repository import Repository


@dataclass(frozen=True, slots=True)
class MergedPromotion:
    """A promotion that some commit has."""

    promotion: Promotion
    commit: str

    @property
    def generation(self) -> int:
        """The promotion's."""
        return generation_of(self.promotion)


def newest(
    repository: Repository, commit: str, environment: str, model: str, trust: Trust | None
) -> MergedPromotion | None:
    """The promotion of the highest generation up to `commit`, where it was first, if there is one.

    With a trust root only those count that a promoter's key signed, whenever it held (a commit's time is
    its release's): an untrusted client's number must not stand in the way of all later promotions.
    """
    path = f"{layout.folder(environment, model)}/{layout.PROMOTION}"
    found: MergedPromotion | None = None
    for seen in repository.history(commit, path):
        bundle = repository.read(seen, path)
        if bundle is None:
            continue
        try:
            if trust is not None and not _by_a_promoter(bundle, trust):
                continue
            known = MergedPromotion(claimed_promotion(bundle), seen)
            if found is None or known.generation >= found.generation:
                found = known
        except LineageError:
            continue
    return found


def regression(present: Promotion, known: MergedPromotion | None) -> str | None:
    """What is wrong with having `present` now, in one sentence; None when nothing is."""
    generation = generation_of(present)
    if known is None or generation > known.generation or present == known.promotion:
        return None
    if generation == known.generation:
        return f"there are two promotions of generation {generation}: another one is in commit {known.commit[:12]}"
    return (
        f"generation regression: this is generation {generation}, but commit {known.commit[:12]} had {known.generation}"
    )


def _by_a_promoter(bundle: bytes, trust: Trust) -> bool:
    envelope = dsse.parse_bundle(bundle)
    message = dsse.pre_authentication_encoding(envelope.payload_type, envelope.payload)
    keys = [key for key in trust.keys if key.role == "promoter"]
    return any(key.verifies(signature, message) for key in keys for signature in envelope.signatures)


def check(
    repository: Repository, commit: str, files: Mapping[str, bytes], trust: Trust | None = None
) -> list[ManifestFault]:
    """Faults of the promotions among `files` (path → bytes) against what Git remembers up to `commit`."""
    found = []
    for path, bundle in sorted(files.items()):
        place = path.removeprefix(f"{layout.ENVIRONMENTS}/").split("/")
        if not path.startswith(f"{layout.ENVIRONMENTS}/") or len(place) != 3 or place[2] != layout.PROMOTION:
            continue
        environment, model = place[:2]
        try:
            wrong = regression(claimed_promotion(bundle), newest(repository, commit, environment, model, trust))
        except LineageError as error:
            wrong = f"this is not a promotion: {error}"
        if wrong:
            fix = f"take back what changed {path}, or: helix promote {model} --to {environment}"
            found.append(ManifestFault(f"{environment}: {model}", "promotion", wrong, fix))
    return found
