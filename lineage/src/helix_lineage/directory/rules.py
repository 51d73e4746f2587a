"""What the directory takes, and what it refuses: requests, a time and what was taken before, and no IO.

The same rules are run by the directory when it is asked and by whoever audits it: each entry must have
been right when it was taken.

- Registration: the header makes the shard's id, its key signed the checkpoint of the header alone; the release is
  known and says the same model and image; a promotion is known, of that release and generation, and the newest of
  its model and environment; in a directory of environments there is a promotion, into one of them; none of these,
  nor the keys that signed them, was revoked.
- Advance: the shard is registered and not closed; its key signed the checkpoint, which extends the last one taken.
- Ending: the same, and the last entry under the checkpoint is a close entry.
- Statement: a key of its role signed it, and the key was not revoked before; a promotion's release is known and not
  revoked, and its generation is newer than any of its model and environment; a revocation's index is reached.
- What was taken before is answered with the same entry.
- An entry's bundle is there and has the digest that the entry names, or nothing can be told (StatementMissing). Only
  one that is there, and that the trust root does not bear (any more), is void: it counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from helix_lineage.attestations import promotion, release, revocation
from helix_lineage.attestations.promotion import VerifiedPromotion, verify_promotion
from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.attestations.revocation import VerifiedRevocation, verify_revocation
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import bundles
from helix_lineage.directory.entries import (
    MAX_BUNDLE_BYTES,
    Advance,
    Ending,
    Entry,
    Registration,
    StatementEntry,
    decode,
    digest_of,
)
from helix_lineage.errors import DirectoryRefusal, LineageError, ShardError, StatementMissing
from helix_lineage.shard.entries import Close, decode as decode_shard_entry
from helix_lineage.shard.header import ShardHeader, shard_id
from helix_lineage.tlog import checkpoint, merkle

Verified = VerifiedRelease | VerifiedPromotion | VerifiedRevocation


@dataclass(slots=True)
class RegisteredShard:
    """A shard that is registered."""

    id: str
    header: ShardHeader
    index: int
    """Entry of the registration."""
    time_ns: int
    """When it was registered, by the directory's clock."""
    size: int
    root: bytes
    """Of the last checkpoint taken."""
    last: int
    """Entry of that checkpoint."""
    closed: bool = False
    seen: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """`(entry, time, size, note)` of every checkpoint taken, the registration's first."""

    @property
    def withdrawn(self) -> bool:
        """Did its own key close it with nothing between header and close entry? Then it served nothing."""
        return self.closed and self.size == 2


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """A statement that was taken."""

    verified: Verified
    index: int
    time_ns: int


@dataclass(slots=True)
class DirectoryState:
    """What a directory has taken."""

    trust: Trust
    environments: frozenset[str] = frozenset()
    """Where a directory is for environments, a shard must be promoted into one of them; an auditor asks for none."""
    size: int = 0
    time_ns: int = 0
    """Of the last entry; the directory's time never goes back."""
    shards: dict[str, RegisteredShard] = field(default_factory=dict)
    releases: dict[str, StoredStatement] = field(default_factory=dict)
    promotions: dict[str, StoredStatement] = field(default_factory=dict)
    revocations: dict[str, StoredStatement] = field(default_factory=dict)
    """By digest of the record, like the two before."""
    newest: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    """Model and environment → newest generation, and the digest of its promotion."""
    void: list[int] = field(default_factory=list)
    """Statements whose bundle is there, but that the trust root does not bear (any more): they count for nothing."""

    def decide(self, body: Entry, time_ns: int, bundle: bytes | None = None) -> int | None:
        """None when it may be taken; the index of the entry that says the same, if one does.

        Raises DirectoryRefusal, with the reason.

        Args:
            bundle: a statement's.
        """
        try:
            if isinstance(body, Registration):
                return self._registration(body, time_ns)
            if isinstance(body, Advance):
                return self._advance(body)
            if isinstance(body, Ending):
                return self._ending(body)
            return self._statement(body, bundle, time_ns)
        except DirectoryRefusal:
            raise
        except LineageError as error:
            raise DirectoryRefusal(error.what, where=error.where) from error

    def apply(self, entry: bytes, bundle: bytes | None = None) -> None:
        """Remember an entry that was taken.

        Raises DirectoryError when it is none, StatementMissing when its bundle is absent or another one.
        """
        time_ns, body = decode(entry)
        if isinstance(body, StatementEntry):
            self._remember(body, bundle, time_ns)
        else:
            self._follow(body, time_ns)
        self.size, self.time_ns = self.size + 1, time_ns

    def revoked(self, kind: str, target: str | None, at: datetime | None = None) -> VerifiedRevocation | None:
        """The first revocation of that, of those that hold at `at` (None: of all)."""
        return revocation.earliest(self.all_revocations(), kind, target, at)

    def all_revocations(self) -> list[VerifiedRevocation]:
        """In the order in which they were taken."""
        verified = [known.verified for known in self.revocations.values()]
        return [item for item in verified if isinstance(item, VerifiedRevocation)]

    def index_of(self, found: VerifiedRevocation) -> int:
        """Entry of a revocation."""
        return self.revocations[found.revocation.digest].index

    def _registration(self, body: Registration, time_ns: int) -> int | None:
        name = shard_id(body.header)
        claimed = checkpoint.parse(body.note).origin
        if claimed != checkpoint.SHARD_ORIGIN + name:
            raise DirectoryRefusal(f"the header makes the id {name}, but the checkpoint is of {claimed}")
        header = ShardHeader.from_bytes(body.header)
        note = checkpoint.verify(body.note, claimed, header.public_key)
        if (note.size, note.root) != (1, merkle.leaf_hash(body.header)):
            raise DirectoryRefusal("the checkpoint is not that of the header alone", where=name)
        if name in self.shards:
            return self.shards[name].index
        self._may_serve(header, time_ns)
        return None

    def _may_serve(self, header: ShardHeader, time_ns: int) -> None:
        """The release is known and counts, and so does the promotion, which is the newest. Raises DirectoryRefusal."""
        known = self.releases.get(header.release or "")
        if known is None or not isinstance(known.verified, VerifiedRelease):
            raise DirectoryRefusal("the header's release is unknown here", where=header.release or "no release")
        said = known.verified.release.parameters
        for name, ours in (("model", header.model), ("image", header.image)):
            if ours != said[name]:
                raise DirectoryRefusal(f"the header's {name} is {ours}, but the release's is {said[name]}")
        self._counts("release", known, known.verified.release.digest, time_ns)
        self._counts("image", known, header.image, time_ns)
        if header.promotion is None:
            if self.environments:
                raise DirectoryRefusal(f"mode {header.mode}: a shard without a promotion is not registered here")
            return
        promoted = self.promotions.get(header.promotion)
        if promoted is None or not isinstance(promoted.verified, VerifiedPromotion):
            raise DirectoryRefusal("the header's promotion is unknown here", where=header.promotion)
        found = promoted.verified
        if self.environments and found.environment not in self.environments:
            raise DirectoryRefusal(f"no shard of {found.environment} is registered here", where=header.promotion)
        if found.promotion.parents["release"] != header.release:
            raise DirectoryRefusal("the header's promotion is of another release", where=header.promotion)
        if found.generation != header.generation:
            raise DirectoryRefusal(
                f"the header's generation is {header.generation}, the promotion's {found.generation}"
            )
        self._counts("promotion", promoted, header.promotion, time_ns)
        newest, _ = self.newest[header.model, found.environment]
        if found.generation < newest:
            where = f"{header.model} in {found.environment}"
            raise DirectoryRefusal(
                f"the header's promotion is generation {found.generation}, but {newest} is known", where=where
            )

    def _counts(self, kind: str, known: StoredStatement, target: str | None, time_ns: int) -> None:
        """Neither the thing nor, before it came here, its signer's key is revoked. Raises DirectoryRefusal."""
        if found := self.revoked(kind, target, _time(time_ns)):
            raise DirectoryRefusal(_revoked(kind, found), where=target)
        # What a key signed and this log held before the key was revoked stays good: the log's time says so.
        signer = known.verified.key_id
        if found := self.revoked("key", signer, _time(known.time_ns)):
            raise DirectoryRefusal(f"the {kind} came after its {_revoked('key', found)}", where=signer)

    def _shard(self, name: str) -> RegisteredShard:
        if name not in self.shards:
            raise DirectoryRefusal("the shard is not registered here", where=name)
        return self.shards[name]

    def _grown(self, shard: RegisteredShard, note: bytes, proof: tuple[bytes, ...]) -> checkpoint.Checkpoint:
        """The checkpoint, which extends the last one taken. Raises DirectoryRefusal or TrustError."""
        signed = checkpoint.verify(note, checkpoint.SHARD_ORIGIN + shard.id, shard.header.public_key)
        if signed.size < shard.size:
            raise DirectoryRefusal(
                f"the checkpoint has {signed.size} entries, but {shard.size} were taken", where=shard.id
            )
        if not merkle.verify_consistency(shard.size, signed.size, shard.root, signed.root, proof):
            raise DirectoryRefusal(
                f"the consistency proof from {shard.size} to {signed.size} entries does not hold", where=shard.id
            )
        return signed

    def _advance(self, body: Advance) -> int | None:
        shard = self._shard(body.shard)
        signed = self._grown(shard, body.note, body.consistency)
        if signed.size == shard.size:
            return shard.last
        if shard.closed:
            raise DirectoryRefusal("the shard is closed", where=shard.id)
        return None

    def _ending(self, body: Ending) -> int | None:
        shard = self._shard(body.shard)
        signed = self._grown(shard, body.note, body.consistency)
        try:
            closes = isinstance(decode_shard_entry(body.close), Close)
        except ShardError:
            closes = False
        if not closes:
            raise DirectoryRefusal("the entry is not a close entry", where=shard.id)
        leaf, last = merkle.leaf_hash(body.close), signed.size - 1
        if not merkle.verify_inclusion(last, signed.size, leaf, body.inclusion, signed.root):
            raise DirectoryRefusal("the close entry is not the last one under the checkpoint", where=shard.id)
        if shard.closed and signed.size > shard.size:
            raise DirectoryRefusal("the shard is closed", where=shard.id)
        return shard.last if shard.closed else None

    def _statement(self, body: StatementEntry, bundle: bytes | None, time_ns: int) -> int | None:
        verified = self._verify(body, bundle, time_ns)
        if isinstance(verified, VerifiedRelease):
            known, kind, digest = self.releases, "release", verified.release.digest
        elif isinstance(verified, VerifiedPromotion):
            known, kind, digest = self.promotions, "promotion", verified.promotion.digest
        else:
            known, kind, digest = self.revocations, "revocation", verified.revocation.digest
        if digest in known:
            return known[digest].index
        self._counts(kind, StoredStatement(verified, self.size, time_ns), digest, time_ns)
        if isinstance(verified, VerifiedPromotion):
            self._succeeds(verified, time_ns)
        if isinstance(verified, VerifiedRevocation) and verified.index > self.size:
            raise DirectoryRefusal(f"the revocation is as of entry {verified.index}, but there are {self.size}")
        return None

    def _verify(self, body: StatementEntry, bundle: bytes | None, time_ns: int) -> Verified:
        """Raises LineageError, naming what does not hold."""
        bundle, at = bundles.own(body, bundle), _time(time_ns)
        if body.predicate_type == release.PREDICATE_TYPE:
            return verify_release(bundle, self.trust, image=None, at=at)
        if body.predicate_type == revocation.PREDICATE_TYPE:
            return verify_revocation(bundle, self.trust, at=at)
        if body.predicate_type != promotion.PREDICATE_TYPE:
            raise DirectoryRefusal(f"no release, promotion or revocation: {body.predicate_type!r}")
        named = bundles.named_release(bundle)
        known = self.releases.get(named)
        if known is None or not isinstance(known.verified, VerifiedRelease):
            raise DirectoryRefusal("the promotion's release is unknown here", where=named)
        return verify_promotion(bundle, self.trust, known.verified, environment=None, at=at)

    def _succeeds(self, found: VerifiedPromotion, time_ns: int) -> None:
        """The promotion is newer than any of its model in its environment. Raises DirectoryRefusal."""
        parent = found.promotion.parents["release"]
        self._counts("release", self.releases[parent], parent, time_ns)
        place = str(found.promotion.parameters["model"]), found.environment
        newest, digest = self.newest.get(place, (0, ""))
        if found.generation < newest:
            raise DirectoryRefusal(
                f"generation regression: the promotion is generation {found.generation}, but {newest} is known",
                where=" in ".join(place),
            )
        if found.generation == newest:
            raise DirectoryRefusal(
                f"generation {newest} is another promotion already: {digest}", where=" in ".join(place)
            )

    def _follow(self, body: Registration | Advance | Ending, time_ns: int) -> None:
        """Remember what is known of a shard now."""
        signed = checkpoint.parse(body.note)
        if isinstance(body, Registration):
            name = shard_id(body.header)
            header = ShardHeader.from_bytes(body.header)
            shard = RegisteredShard(name, header, self.size, time_ns, signed.size, signed.root, self.size)
            self.shards[name] = shard
        else:
            shard = self._shard(body.shard)
            shard.size, shard.root, shard.last = signed.size, signed.root, self.size
            shard.closed = isinstance(body, Ending)
        shard.seen.append((self.size, time_ns, signed.size, body.note))

    def _remember(self, body: StatementEntry, bundle: bytes | None, time_ns: int) -> None:
        """Remember a statement, if the trust root (which may be another one by now) bears it."""
        try:
            verified = self._verify(body, bundle, time_ns)
        except StatementMissing:
            raise
        except LineageError:
            self.void.append(self.size)
            return
        known = StoredStatement(verified, self.size, time_ns)
        if isinstance(verified, VerifiedRelease):
            self.releases[verified.release.digest] = known
        elif isinstance(verified, VerifiedPromotion):
            self.promotions[verified.promotion.digest] = known
            place = str(verified.promotion.parameters["model"]), verified.environment
            self.newest[place] = verified.generation, verified.promotion.digest
        else:
            self.revocations[verified.revocation.digest] = known


def statement_of(bundle: bytes) -> StatementEntry:
    """What the log would hold of a bundle; nothing of it is believed. Raises DirectoryRefusal."""
    if len(bundle) > MAX_BUNDLE_BYTES:
        raise DirectoryRefusal(f"the bundle has {len(bundle)} bytes, more than {MAX_BUNDLE_BYTES}")
    found = bundles.payload(bundle).get("predicateType")
    if not isinstance(found, str):
        raise DirectoryRefusal("the bundle holds no statement with a predicateType")
    return StatementEntry(found, digest_of(bundle))


def _revoked(kind: str, found: VerifiedRevocation) -> str:
    return f"{kind} was revoked as of {found.since.isoformat()}: {found.reason}"


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
