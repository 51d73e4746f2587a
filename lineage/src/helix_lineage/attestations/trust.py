"""The trust root: which keys may say what, and when (FORMAT.md 5).

Takes `trust.json`, gives keys that check signatures. Nothing here reads a clock.

- The file is JSON: `version` 1 and a list of keys, each with exactly the known fields, all texts.
- A key of an unknown role is passed over.
- A key is PEM, of the algorithm that it names, and `key_id` is its digest.
- Its times have a zone; it holds from `not_before` until before `not_after`.
- A signature counts when a key of the role made it that holds at the time asked about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from helix_lineage.errors import TrustError, explaining
from helix_lineage.formats.canonical import Json
from helix_lineage.formats.untrusted import MAX_BUNDLE_BYTES, parse_json, read

ROLES = ("releaser", "promoter", "directory", "witness", "revoker", "cache")
ECDSA = "ecdsa-p256-sha256"
ED25519 = "ed25519"
_FIELDS = {"role", "key_id", "algorithm", "public_key", "not_before", "not_after", "builder"}

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that holds one role for some time."""

    role: str
    key_id: str
    """Digest of the SubjectPublicKeyInfo DER."""
    algorithm: str
    public_key: PublicKey
    not_before: datetime
    not_after: datetime
    builder: str
    """Who works with this key, for instance `laptop`."""

    def holds(self, at: datetime) -> bool:
        """Is the key valid at that time (with a time zone)?"""
        return self.not_before <= at < self.not_after

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Did this key make the signature?"""
        try:
            if isinstance(self.public_key, ed25519.Ed25519PublicKey):
                self.public_key.verify(signature, message)
            else:
                self.public_key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Trust:
    """All trusted keys."""

    keys: tuple[TrustedKey, ...]
    digest: str | None = None
    """`sha256:<64 hex>` of the file that it was read from."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `trust.json`. Raises TrustError."""
        with explaining(TrustError, "cannot read the trust root", where=str(path), fix="helix keys init"):
            data = read(path, limit=MAX_BUNDLE_BYTES, follow=True)
        try:
            return cls.parse(data)
        except TrustError as error:
            raise TrustError(error.what, where=str(path)) from error

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the bytes of a `trust.json`. Raises TrustError."""
        try:
            value = parse_json(data)
        except ValueError as error:
            raise TrustError(f"the trust root is not JSON: {error}") from error
        if not isinstance(value, dict) or value.get("version") != 1 or not isinstance(value.get("keys"), list):
            raise TrustError('a trust root is {"version": 1, "keys": […]}')
        # A role that came later must not stop who does not know it: its keys count for nothing here.
        keys = tuple(_key(item) for item in map(_fields, value["keys"]) if item["role"] in ROLES)
        return cls(keys, "sha256:" + hashlib.sha256(data).hexdigest())

    def keys_for(self, role: str, at: datetime) -> tuple[TrustedKey, ...]:
        """The keys that hold `role` at that time; several while one replaces another."""
        return tuple(key for key in self.keys if key.role == role and key.holds(at))

    def key_for(self, role: str, at: datetime, key_id: str | None = None) -> TrustedKey:
        """The key of `role` (with that id, if given) that holds at `at`. Raises TrustError."""
        named = [key for key in self.keys if key.role == role and key_id in (None, key.key_id)]
        for key in named:
            if key.holds(at):
                return key
        raise TrustError(_why_none(role, named, at), fix="helix keys init")

    def signer(self, role: str, at: datetime, message: bytes, signatures: Iterable[bytes]) -> TrustedKey:
        """The key of `role`, holding at `at`, that made one of the signatures. Raises TrustError."""
        named, signatures = [key for key in self.keys if key.role == role], list(signatures)
        by = [key for key in named if any(key.verifies(signature, message) for signature in signatures)]
        for key in by:
            if key.holds(at):
                return key
        if not by and (other := self._other_role(role, message, signatures)):
            raise TrustError(other)
        if by or not named:
            raise TrustError(f"the signature is by {_why_none(role, by, at)}" if by else _why_none(role, by, at))
        raise TrustError(f"no signature is by a key of role {role!r} in the trust root")

    def _other_role(self, role: str, message: bytes, signatures: list[bytes]) -> str | None:
        """Who signed instead, where the trust root knows that key in another role."""
        for key in self.keys:
            if key.role != role and any(key.verifies(signature, message) for signature in signatures):
                return f"no key of role {role!r} in the trust root made the signature: one of role {key.role!r} did"
        return None


def key_id_of(public_key: PublicKey) -> str:
    """The digest of the key's SubjectPublicKeyInfo DER."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(der).hexdigest()


def _why_none(role: str, named: list[TrustedKey], at: datetime) -> str:
    if not named:
        return f"no key of role {role!r} in the trust root"
    spans = "; ".join(f"{key.key_id} from {key.not_before.isoformat()} to {key.not_after.isoformat()}" for key in named)
    return f"no key of role {role!r} that holds at {at.isoformat()}: {spans}"


def _fields(value: Json) -> dict[str, str]:
    texts = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if not texts or set(value) != _FIELDS:
        raise TrustError(f"a trusted key has exactly these fields, all texts: {sorted(_FIELDS)}")
    return dict(value)


def _key(value: dict[str, str]) -> TrustedKey:
    public_key = _public_key(value["public_key"], value["algorithm"])
    if key_id_of(public_key) != value["key_id"]:
        raise TrustError(f"key_id {value['key_id']} is not the digest of its public key", where=value["role"])
    start, end = _time(value["not_before"]), _time(value["not_after"])
    return TrustedKey(value["role"], value["key_id"], value["algorithm"], public_key, start, end, value["builder"])


def _public_key(pem: str, algorithm: str) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(f"a public key is not PEM, or of an unknown kind: {error}") from error
    if algorithm == ECDSA and isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if algorithm == ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise TrustError(f"the public key is not of algorithm {algorithm!r} ({ECDSA} or {ED25519})")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise TrustError(f"not a time as in 2026-01-31T00:00:00Z: {text!r}") from error
    if time.tzinfo is None:
        raise TrustError(f"the time has no zone (write Z): {text!r}")
    return time
