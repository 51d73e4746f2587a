"""Verify a signed revocation: what is revoked, and since when (FORMAT.md 6.2). Pure.

- A revoker's key signed it, valid at the time asked about.
- The predicate is one revocation.
- It has one subject: the target.
- Its kind is one of KINDS, and its target a digest.
- `since` is a time with a zone.
- `index` is the size of a directory.
- There is a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from helix_lineage.attestations import dsse
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import CanonicalError, RecordError, TrustError
from helix_lineage.formats.canonical import SAFE_INTEGER, Json, check_digest
from helix_lineage.records.chain import Revocation, embedded

PREDICATE_TYPE = "https://helix.example/revocation/v1"
KINDS = ("release", "promotion", "image", "key")


@dataclass(frozen=True, slots=True)
class VerifiedRevocation:
    """A revocation whose signature holds."""

    revocation: Revocation
    key_id: str
    """The revoker's key."""

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return str(self.revocation.parameters["kind"])

    @property
    def target(self) -> str:
        """The digest or key id that is revoked."""
        return str(self.revocation.parameters["target"])

    @property
    def since(self) -> datetime:
        """From when on it is revoked."""
        return since_of(self.revocation)

    @property
    def index(self) -> int:
        """Size of the directory that the revoker looked at."""
        return int(self.revocation.parameters["index"])

    @property
    def reason(self) -> str:
        """Why, in a sentence for people."""
        return str(self.revocation.parameters["reason"])


def verify_revocation(bundle: bytes, trust: Trust, *, at: datetime) -> VerifiedRevocation:
    """Check a revocation bundle. Raises TrustError or RecordError, naming the field that does not hold."""
    statement = dsse.open_statement(bundle, trust, role="revoker", predicate_type=PREDICATE_TYPE, at=at)
    revocation = parse_predicate(statement.predicate)
    check(revocation)
    if len(statement.subjects) != 1:
        raise TrustError(f"the revocation statement has {len(statement.subjects)} subjects, not one")
    subject, target = statement.subjects[0].digest, revocation.parameters["target"]
    if subject != target:
        raise TrustError(f"the revocation's subject is {subject}, but its target is {target}")
    return VerifiedRevocation(revocation, statement.signer.key_id)


def parse_predicate(predicate: Mapping[str, Json]) -> Revocation:
    """The revocation in a statement's predicate. Raises TrustError or RecordError; who signed it is not asked here."""
    if set(predicate) != {"revocation"}:
        raise TrustError('the predicate is {"revocation": …}')
    return embedded(predicate["revocation"], Revocation, "predicate.revocation")


def check(revocation: Revocation) -> None:
    """Every parameter is what it must be. Raises RecordError, naming it."""
    said = revocation.parameters
    if said["kind"] not in KINDS:
        raise RecordError(f"revocation.parameters.kind is {said['kind']!r}, not one of {KINDS}")
    try:
        check_digest(said["target"])
    except CanonicalError as error:
        raise RecordError(f"revocation.parameters.target: {error}") from error
    since_of(revocation)
    if type(said["index"]) is not int or not 0 <= said["index"] < SAFE_INTEGER:
        raise RecordError(f"revocation.parameters.index is {said['index']!r}, not a number")
    if not isinstance(said["reason"], str) or not said["reason"].strip():
        raise RecordError("revocation.parameters.reason is no reason")


def since_of(revocation: Revocation) -> datetime:
    """From when on. Raises RecordError."""
    text = revocation.parameters["since"]
    try:
        since = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise RecordError(f"revocation.parameters.since is {text!r}, not a time as 2026-01-31T00:00:00Z") from error
    if since.tzinfo is None:
        raise RecordError(f"revocation.parameters.since has no zone (write Z): {text!r}")
    return since


def earliest(
    revocations: Iterable[VerifiedRevocation], kind: str, target: str | None, at: datetime | None = None
) -> VerifiedRevocation | None:
    """The first revocation of that, of those that hold at `at` (None: of all)."""
    found = [item for item in revocations if (item.kind, item.target) == (kind, target)]
    found = [item for item in found if at is None or item.since <= at]
    return min(found, key=lambda item: item.since, default=None)
