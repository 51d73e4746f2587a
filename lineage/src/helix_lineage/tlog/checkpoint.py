"""Checkpoints: a tree's size and root as a C2SP signed note (Ed25519). Pure.

>>> key = Ed25519PrivateKey.from_private_bytes(bytes(32))
>>> text = sign(Checkpoint("helix.example/shard/x", 1, bytes(32)), key)
>>> verify(text, "helix.example/shard/x", raw_public_key(key)).size
1
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from helix_lineage.errors import TrustError

SHARD_ORIGIN = "helix.example/shard/"
DIRECTORY_ORIGIN = "helix.example/directory/"
_DASH = "\u2014 "
_ED25519 = b"\x01"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself at one size."""

    origin: str
    size: int
    root: bytes
    """32 bytes."""

    @property
    def body(self) -> str:
        """The note's text, which the signature covers."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def raw_public_key(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public half."""
    return key.public_key().public_bytes_raw()


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """The signed note; the key's name is the origin."""
    return CheckpointSigner(checkpoint.origin, key).sign(checkpoint.size, checkpoint.root)


class CheckpointSigner:
    """Signs the checkpoints of one log: what is the same in all of them is made once."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        self._origin, self._sign = origin, key.sign
        self._key_hash = _key_hash(origin, raw_public_key(key))

    def sign(self, size: int, root: bytes) -> bytes:
        """The signed note of the log at one size."""
        body = Checkpoint(self._origin, size, root).body.encode()
        signature = self._key_hash + self._sign(body)
        return body + f"\n{_DASH}{self._origin} {base64.b64encode(signature).decode()}\n".encode()


def parse(note: bytes) -> Checkpoint:
    """Read a note's text without checking a signature. Raises TrustError."""
    return _split(note)[0]


def verify(note: bytes, origin: str, public_key: bytes) -> Checkpoint:
    """Read a note that `public_key` (raw Ed25519) signed under the name `origin`. Raises TrustError."""
    checkpoint, lines = _split(note)
    if checkpoint.origin != origin:
        raise TrustError(f"the checkpoint is of another log: {checkpoint.origin!r}", where=origin)
    wanted = _key_hash(origin, public_key)
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).rpartition(" ")
        signature = _decode_base64(encoded)
        if name != origin or signature[:4] != wanted:
            continue  # other signers (witnesses) may have signed the same note
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature[4:], checkpoint.body.encode())
        except (InvalidSignature, ValueError) as error:
            raise TrustError("the checkpoint's signature does not hold", where=origin) from error
        return checkpoint
    raise TrustError("the checkpoint is not signed by the log's key", where=origin)


def _split(note: bytes) -> tuple[Checkpoint, list[str]]:
    """The checkpoint and its signature lines."""
    try:
        text = note.decode()
    except UnicodeDecodeError as error:
        raise TrustError("a checkpoint is UTF-8 text") from error
    body, blank, signatures = text.partition("\n\n")
    lines = body.split("\n")
    if not blank or len(lines) != 3 or not signatures.endswith("\n"):
        raise TrustError("a checkpoint is origin, size and root, a blank line, and signatures")
    origin, size, encoded = lines
    if not (size.isascii() and size.isdigit() and len(size) <= 19 and str(int(size)) == size):
        raise TrustError(f"a checkpoint's size is a decimal number, not {size!r}")
    root = _decode_base64(encoded)
    if not origin or len(root) != 32:
        raise TrustError("a checkpoint has an origin and a root of 32 bytes")
    signature_lines = signatures[:-1].split("\n")
    if not all(line.startswith(_DASH) for line in signature_lines):
        raise TrustError("a signature line starts with an em dash")
    return Checkpoint(origin, int(size), root), signature_lines


def _decode_base64(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TrustError(f"not base64: {text!r}") from error
    if base64.b64encode(value).decode() != text:
        raise TrustError(f"base64 with stray bits: {text!r}")  # else one note would have several spellings
    return value


def _key_hash(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]
