"""Find the release that a shard's header names, and check it: from signed bundles, or else from stored records.

- Bundles are the shard's own copy, then those that were given; one counts when it claims the header's release.
- It must verify under the trust root, for the header's image, as of the header's start.
- Without one that does, the store's records show the chain, and the problem says what is not proven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from helix_lineage.attestations import dsse
from helix_lineage.attestations.release import ROLE_TYPES, VerifiedRelease, complete_chain, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, TrustError, explaining
from helix_lineage.formats import untrusted
from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.records.chain import Record, Release
from helix_lineage.records.store import RecordStore
from helix_lineage.shard.reader import Shard

_Question = tuple[str, str, str | None, datetime]
"""Digest of the bundle's bytes, the release, the image, and when the key must hold."""


@dataclass(frozen=True, slots=True)
class ReleaseSources:
    """Where to look for releases."""

    bundles: tuple[Path, ...] = ()
    """Files; the shard's own copy is looked at first."""
    store: RecordStore | None = None
    """Records by digest: they show the chain, without a signature."""
    trust: Trust | None = None
    """Without it no signature is believed."""
    _verified: dict[_Question, VerifiedRelease] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What verified under this trust root: the same bytes asked about again need not be verified again."""

    def without_stand_ins(self) -> ReleaseSources:
        """Only the shard's own copy; what verified before is remembered."""
        made = ReleaseSources(trust=self.trust)
        object.__setattr__(made, "_verified", self._verified)
        return made


@dataclass(frozen=True, slots=True)
class FoundRelease:
    """A release and its chain. Its digest is the one that was asked for, whoever signed it."""

    release: Release
    records: Mapping[str, Record]
    verified: VerifiedRelease | None
    """Set when the signature holds."""
    problem: str | None
    """Why it does not."""
    bundle: bytes | None = None
    """What was verified."""


def find_release(shard: Shard, sources: ReleaseSources) -> FoundRelease:
    """The release that the shard's header names. Raises TrustError when it is nowhere to be found.

    Signatures are checked as of the header's start, which is the host's claim.
    """
    digest = shard.header.release
    if digest is None:
        raise TrustError("the shard was served without a release", where=shard.id)
    at = datetime.fromtimestamp(shard.header.started_ns / 1e9, UTC)
    problem = "no signed bundle of this release was found"
    for path in (shard.folder.release, *sources.bundles):
        bundle = _read(path, follow=path != shard.folder.release)
        question = (digest_bytes(bundle), digest, shard.header.image, at)
        if question in sources._verified:
            verified = sources._verified[question]
            return FoundRelease(verified.release, verified.records, verified, None, bundle)
        if not _claims(bundle, digest):
            continue
        if sources.trust is None:
            problem = "no trust root was given"
            break
        try:
            verified = verify_release(bundle, sources.trust, image=shard.header.image, at=at)
        except LineageError as error:
            problem = str(error)
        else:
            sources._verified[question] = verified
            return FoundRelease(verified.release, verified.records, verified, None, bundle)
    return _from_store(digest, sources.store, problem)


def read_bundle(path: Path) -> bytes:
    """A signed bundle that somebody named. Raises TrustError when it is not a file of a size that may be."""
    with explaining(TrustError, "cannot read the bundle", where=str(path)):
        return untrusted.read(path, limit=untrusted.MAX_BUNDLE_BYTES, follow=True)


def _read(path: Path, *, follow: bool) -> bytes:
    """The file; empty when it cannot be read."""
    try:
        return untrusted.read(path, limit=untrusted.MAX_BUNDLE_BYTES, follow=follow)
    except OSError:
        return b""


def _claims(bundle: bytes, digest: str) -> bool:
    """Is this a bundle that claims to hold that release?"""
    try:
        return digest_bytes(dumps(dsse.claimed_predicate(bundle)["release"])) == digest
    except (KeyError, LineageError):
        return False


def _from_store(digest: str, store: RecordStore | None, problem: str) -> FoundRelease:
    if store is None or not store.has(digest):
        raise TrustError(f"the release cannot be shown: {problem}", where=digest, fix="add --release FILE")
    records: dict[str, Record] = {}
    waiting = [digest]
    while waiting:
        record = store.get_record(waiting.pop())
        records[record.digest] = record
        waiting += [record.parents[role] for role in ROLE_TYPES.get(type(record), {}) if role in record.parents]
    release = records.pop(digest)
    if not isinstance(release, Release):
        raise TrustError(f"the header's release is a {release.TYPE}", where=digest)
    complete_chain(release, records)
    return FoundRelease(release, records, None, problem)
