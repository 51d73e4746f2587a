"""Sign an image and say what is known about it: signature, provenance, test result, release.

Takes a release with the records of its chain; pushes them beside the image, has cosign sign
the image and three in-toto statements (offline: no transparency log, no timestamping service),
attaches everything as OCI 1.1 referrers, and writes the release's bundle for servers.
Platform code only: no researcher's code runs where this can reach a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helix_lineage.attestations.dsse import BUNDLE_TYPE, open_statement, parse_bundle
from helix_lineage.attestations.release import complete_chain, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, TrustError
from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.paths import RELEASE_FILE, State
from helix_lineage.records.chain import Record, Release
from helix_lineage.records.store import RecordStore
from model_to_metal.errors import AttestError
from model_to_metal.host import tools
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import keys, provenance
from model_to_metal.supply_chain.cosign import CosignSigner

FILES: Mapping[str, str] = {
    provenance.PROVENANCE: "provenance.sigstore.json",
    provenance.TEST_RESULT: "test-result.sigstore.json",
    provenance.RELEASE: RELEASE_FILE,
}
"""Predicate type → file under `.helix/releases/<model>/`."""


@dataclass(frozen=True, slots=True)
class Attested:
    """A signed image."""

    image: Image
    release: Release
    folder: Path
    """Holds the latest bundles as files, and each commit's release; servers need `release.sigstore.json` of it."""
    signed: tuple[str, ...]
    """Predicate types that were signed now; empty when all were there already."""


def attest_image(
    state: State,
    client: Client,
    image: Image,
    release: Release,
    *,
    records: Iterable[Record],
    evidence: Mapping[str, bytes],
    report: Callable[[str], None] = lambda _line: None,
) -> Attested:
    """Sign and attest `image`; what is signed already, by this key and to the letter, is left alone.

    Raises AttestError when the chain is incomplete, a verdict is a refusal, the image is not the
    release's, or the evidence (see `gather`) does not cover the records.
    """
    below = list(records)
    _admit(image, release, below)
    signer = keys.signer(state)
    if release.parameters["builder"] != signer.builder:
        raise AttestError(
            f"the release names the builder {release.parameters['builder']!r}, but the key is {signer.builder}'s"
        )
    said = provenance.predicates(release, below, evidence)
    for record in (*below, release):
        artifacts.push_record(client, record)
    artifacts.attach_records(client, image, [*below, release], evidence)
    context = _ImageSigner(client, image, signer, Trust.load(state.trust), tools.ensure("cosign", state, report))
    signed = [provenance.SIGNATURE] if context.sign() else []
    folder = state.releases / str(release.parameters["model"])
    folder.mkdir(parents=True, exist_ok=True)
    for kind, predicate in said.items():
        bundle, new = context.attest(kind, predicate)
        signed += [kind] if new else []
        _replace(folder / FILES[kind], bundle)
        if kind == provenance.RELEASE:
            # The one above is the latest; a commit that was released before is found by its name.
            _replace(folder / f"{release.parameters['commit']}.{FILES[kind]}", bundle)
    _check(folder, state, image)
    return Attested(image, release, folder, tuple(signed))


def gather(records: Iterable[Record], store: RecordStore, checkout: Path) -> dict[str, bytes]:
    """The files that the records name by digest: lists of sources from the store, locks from the checkout.

    Raises AttestError when one of them is in neither, or has other bytes by now.
    """
    found: dict[str, bytes] = {}
    for record in records:
        for name, digest in provenance.named(record).items():
            if not store.has(digest):
                raise AttestError(f"the store lacks the {name} of {record.TYPE}", where=digest)
            found[digest] = store.read_bytes(digest)
        for path, digest in provenance.locks(record, found).items():
            found[digest] = _lock(checkout / path, digest, store)
    return found


def chain(release: Release, store: RecordStore) -> list[Record]:
    """Every record below the release, from the store. Raises StoreError when one is absent."""
    found: dict[str, Record] = {}
    waiting = list(release.parents.values())
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found[digest] = store.get_record(digest)
            # What production ran before is evidence of another release.
            waiting += [parent for role, parent in found[digest].parents.items() if role != "incumbent"]
    return list(found.values())


class _ImageSigner:
    """Where one image is signed with one key."""

    def __init__(self, client: Client, image: Image, signer: keys.SigningKey, trust: Trust, cosign: Path) -> None:
        self._client = client
        self._image = image
        self._signer = signer
        self._trust = trust
        self._cosign_signer = CosignSigner(cosign, signer)

    def sign(self) -> bool:
        """Sign the image itself, unless this key has; says whether it did."""
        if self._present(provenance.SIGNATURE, None):
            return False
        self._cosign_signer.image(str(self._image))
        return True

    def attest(self, kind: str, predicate: object) -> tuple[bytes, bool]:
        """The signed statement's bundle, and whether it was signed now; attached in the way cosign does it."""
        about = provenance.statement(kind, predicate, name=self._image.repository, image=self._image.digest)
        payload = dumps(about)
        if bundle := self._present(kind, payload):
            return bundle, False
        bundle = self._cosign_signer.statement(payload)
        notes = {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": kind}
        artifacts.attach_blob(self._client, self._image, BUNDLE_TYPE, bundle, notes)
        return bundle, True

    def _present(self, kind: str, payload: bytes | None) -> bytes | None:
        """A bundle that this key signed about the image: with this payload, or (None) any of the kind."""
        for _, bundle in artifacts.attached(self._client, self._image, BUNDLE_TYPE):
            try:
                said = open_statement(bundle, self._trust, role=keys.ROLE, predicate_type=kind, at=datetime.now(UTC))
            except TrustError:
                continue
            mine = said.signer.key_id == self._signer.key_id
            about = [subject.digest for subject in said.subjects] == [self._image.digest]
            if mine and about and payload in (None, parse_bundle(bundle).payload):
                return bundle
        return None


def _admit(image: Image, release: Release, records: Iterable[Record]) -> None:
    """Only a whole chain, with verdicts that passed, about this very image is signed."""
    if release.parameters["image"] != image.digest:
        raise AttestError(f"the release is about {release.parameters['image']}, not this image", where=str(image))
    try:
        complete_chain(release, {record.digest: record for record in records})
    except LineageError as error:
        raise AttestError(f"this release is not signed: {error}", where=release.digest) from error


def _check(folder: Path, state: State, image: Image) -> None:
    """What was written must convince a server."""
    bundle = (folder / FILES[provenance.RELEASE]).read_bytes()
    try:
        verify_release(bundle, Trust.load(state.trust), image=image.digest, at=datetime.now(UTC))
    except LineageError as error:
        raise AttestError(f"the signed release does not verify: {error}", where=str(folder)) from error


def _lock(path: Path, digest: str, store: RecordStore) -> bytes:
    if path.is_file() and digest_bytes(data := path.read_bytes()) == digest:
        return data
    if store.has(digest):
        return store.read_bytes(digest)
    raise AttestError("the lock is not the one that the records name", where=f"{path}: {digest}")


def _replace(path: Path, data: bytes) -> None:
    """A server that reads the file sees the old or the new one, never half of it."""
    half = path.with_suffix(".partial")
    half.write_bytes(data)
    half.replace(path)
