from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, strategies as st

from helix_lineage.errors import TrustError
from helix_lineage.tlog.checkpoint import Checkpoint, parse, raw_public_key, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "helix.example/shard/00112233445566778899aabbccddeeff"
NOTE = sign(Checkpoint(ORIGIN, 42, bytes(range(32))), KEY)


@given(st.integers(0, 2**62), st.binary(min_size=32, max_size=32))
def test_a_signed_checkpoint_verifies(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    note = sign(checkpoint, KEY)
    assert verify(note, ORIGIN, raw_public_key(KEY)) == checkpoint == parse(note)


@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_found(at: int, change: int) -> None:
    changed = bytearray(NOTE)
    changed[at] ^= change
    with pytest.raises(TrustError):
        verify(bytes(changed), ORIGIN, raw_public_key(KEY))


def test_the_form_is_the_one_of_signed_notes() -> None:
    body, _, signatures = NOTE.decode().partition("\n\n")
    assert body.split("\n") == [ORIGIN, "42", base64.b64encode(bytes(range(32))).decode()]
    name, encoded = signatures.removeprefix("\u2014 ").removesuffix("\n").split(" ")
    assert name == ORIGIN
    assert len(base64.b64decode(encoded)) == 4 + 64


def test_other_signers_may_have_signed_too() -> None:
    witness = "\u2014 witness.example " + base64.b64encode(b"0000" + bytes(64)).decode() + "\n"
    assert verify(NOTE + witness.encode(), ORIGIN, raw_public_key(KEY)).size == 42


def test_another_log_and_another_key_are_refused() -> None:
    with pytest.raises(TrustError, match="another log"):
        verify(NOTE, ORIGIN[:-1] + "0", raw_public_key(KEY))
    other = raw_public_key(Ed25519PrivateKey.generate())
    with pytest.raises(TrustError, match="not signed by the log's key"):
        verify(NOTE, ORIGIN, other)


@pytest.mark.parametrize(
    "note",
    [b"", b"\xff", b"a\n1\n", NOTE[:-1], NOTE.replace(b"\n42\n", b"\n042\n"), NOTE.replace(b"\n42\n", b"\n-1\n"),
     NOTE.replace(b"\n42\n", b"\n42\nextension\n"), NOTE.replace("\u2014".encode(), b"-"), NOTE + b"\n",
     NOTE.replace(b"\n42\n", b"\n" + b"9" * 30 + b"\n")],
)  # fmt: skip
def test_malformed_notes_are_refused(note: bytes) -> None:
    with pytest.raises(TrustError):
        verify(note, ORIGIN, raw_public_key(KEY))
