"""Seals: who may say what a stage gave, one trust domain each (FORMAT.md 4.1).

A cache entry replaces a run, so it is believed only under a signature: Ed25519 over canonical
JSON, some 0.1 ms an entry. The trust root names the keys (role `cache`); a key's `builder` is
its domain. A laptop may read what the release builder recorded, never the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from helix_lineage.attestations.trust import Trust, key_id_of
from helix_lineage.errors import TrustError
from helix_lineage.formats.named import read_named
from model_to_metal.errors import KeysError

ROLE = "cache"
KEY_BYTES = 2**16
"""Of a key's file, whoever's it is."""
LAPTOP, PULL_REQUEST, RELEASE = DOMAINS = ("laptop", "pull-request", "release")
"""Who records stages: a person's machine, the runner of a pull request, the release builder."""

_READS = {LAPTOP: (LAPTOP, RELEASE), PULL_REQUEST: (PULL_REQUEST, RELEASE), RELEASE: (RELEASE,)}


@dataclass(frozen=True, slots=True)
class CacheSigner:
    """The key of this machine's domain, and the trust root that names it and the others'."""

    domain: str
    key_id: str
    _trust: Trust = field(repr=False)
    _secret: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def open(cls, secret: Path, trust: Trust, at: datetime) -> CacheSigner:
        """Read the private key; its domain is what the trust root says. Raises KeysError."""
        if not secret.is_file():
            raise KeysError("there is no cache key", where=str(secret), fix="helix keys init")
        if secret.stat().st_mode & 0o077:
            raise KeysError("others can read the cache key", where=str(secret), fix=f"chmod 600 {secret}")
        try:
            key = load_pem_private_key(read_named(secret, "the cache key", limit=KEY_BYTES), _passphrase())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeysError(f"the cache key cannot be read (COSIGN_PASSWORD?): {error}", where=str(secret)) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeysError("a cache key is Ed25519", where=str(secret))
        key_id = key_id_of(key.public_key())
        try:
            named = trust.key_for(ROLE, at, key_id)
        except TrustError as error:
            raise KeysError(f"the trust root does not name the cache key: {error.what}", where=str(secret)) from error
        if named.builder not in DOMAINS:
            raise KeysError(f"a cache key's builder is one of {', '.join(DOMAINS)}", where=named.builder)
        return cls(named.builder, key_id, trust, key)

    def accepted(self, *, releasing: bool) -> tuple[str, ...]:
        """The domains whose entries a run may use. Raises KeysError where no release may be made.

        A release is made of what its own builder recorded, and of nothing else.
        """
        if not releasing:
            return _READS[self.domain]
        if self.domain == PULL_REQUEST:
            raise KeysError(
                "a pull request makes no release: code that nobody has reviewed ran on this machine",
                where=f"cache key {self.key_id}", fix="helix regress MODEL, and release after the merge",
            )  # fmt: skip
        return (self.domain,)

    def sign(self, message: bytes) -> bytes:
        """The signature of this domain."""
        return self._secret.sign(message)

    def check(self, message: bytes, signature: bytes, domain: str, accepted: Sequence[str], at: datetime) -> None:
        """Is this the signature of `domain`, and is that one of those accepted? Raises TrustError."""
        key = self._trust.signer(ROLE, at, message, [signature])
        if key.builder != domain:
            raise TrustError(f"it claims the domain {domain!r}, and is signed by {key.builder!r}")
        if domain not in accepted:
            raise TrustError(f"it is of the domain {domain!r}; this run takes those of {' and '.join(accepted)} only")


def generate(secret: Path, public: Path) -> None:
    """Make a key pair: the private half with mode 0600, under the passphrase in COSIGN_PASSWORD if that is set."""
    key, phrase = Ed25519PrivateKey.generate(), _passphrase()
    how: KeySerializationEncryption = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def describe(public_key: bytes) -> tuple[str, str]:
    """The PEM text and the key id of an Ed25519 public key. Raises KeysError for any other."""
    try:
        key = load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeysError(f"not a public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeysError("a cache key is Ed25519")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), key_id_of(key)


def _passphrase() -> bytes | None:
    return os.environ.get("COSIGN_PASSWORD", "").encode() or None
