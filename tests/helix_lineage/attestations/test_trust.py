from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from helix_lineage.attestations.trust import Trust, TrustedKey, key_id_of
from helix_lineage.errors import TrustError
from tests.helix_lineage.support import NOW, Signer


def _trust(*entries: dict[str, Any]) -> Trust:
    return Trust.parse(json.dumps({"version": 1, "keys": entries}).encode())


def _pem(public: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(public.public_bytes(serialization.Encoding.PEM, form).decode())


def test_keys_hold_their_role_and_time(signer: Signer) -> None:
    trust = signer.trust()
    key = trust.key_for("releaser", NOW)
    assert key.key_id == key_id_of(signer.key.public_key())
    assert key.builder == "laptop"
    assert trust.keys_for("releaser", NOW) == (key,)
    assert trust.keys_for("promoter", NOW) == ()
    assert trust.key_for("releaser", NOW, key.key_id) is key


def test_the_end_of_a_period_is_not_in_it(signer: Signer) -> None:
    trust = signer.trust()
    assert trust.keys_for("releaser", datetime(2026, 1, 1, tzinfo=UTC))
    assert not trust.keys_for("releaser", datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert not trust.keys_for("releaser", datetime(2027, 1, 1, tzinfo=UTC))
    with pytest.raises(TrustError, match="that holds at 2027"):
        trust.key_for("releaser", datetime(2027, 1, 1, tzinfo=UTC))
    with pytest.raises(TrustError, match="no key of role 'witness'"):
        trust.key_for("witness", NOW)


def test_while_keys_rotate_both_hold() -> None:
    old, new = Signer(not_after="2026-07-01T00:00:00Z"), Signer(not_before="2026-05-01T00:00:00Z")
    trust = _trust(old.entry(), new.entry())
    assert len(trust.keys_for("releaser", NOW)) == 2
    signature = new.key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    assert trust.signer("releaser", NOW, b"message", [signature]).key_id == new.entry()["key_id"]


def test_a_signature_is_by_a_key_of_the_role_that_holds(signer: Signer) -> None:
    signature = signer.key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    trust = signer.trust()
    assert trust.signer("releaser", NOW, b"message", [b"junk", signature])
    with pytest.raises(TrustError, match="no signature is by a key of role"):
        trust.signer("releaser", NOW, b"another message", [signature])
    with pytest.raises(TrustError, match="no key of role 'promoter'"):
        trust.signer("promoter", NOW, b"message", [signature])
    with pytest.raises(TrustError, match="that holds at 2030"):
        trust.signer("releaser", datetime(2030, 1, 1, tzinfo=UTC), b"message", [signature])


def test_ed25519_keys_check_signatures() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    entry = Signer().entry() | {
        "role": "directory", "algorithm": "ed25519", "key_id": key_id_of(key.public_key()),
        "public_key": _pem(key.public_key()),
    }  # fmt: skip
    (found,) = _trust(entry).keys
    assert isinstance(found, TrustedKey)
    assert found.verifies(key.sign(b"m"), b"m")
    assert not found.verifies(key.sign(b"m"), b"n")


def test_a_key_of_an_unknown_role_counts_for_nothing_and_stops_nobody() -> None:
    signer = Signer()
    later = signer.entry() | {"role": "boss", "algorithm": "ml-dsa-65", "public_key": "of a kind that comes later"}
    known = Signer().entry()
    assert [key.key_id for key in _trust(later, known).keys] == [known["key_id"]]
    with pytest.raises(TrustError, match="no key of role 'releaser'"):
        _trust(later).key_for("releaser", NOW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key_id": "sha256:" + "0" * 64}, "not the digest of its public key"),
        ({"algorithm": "ed25519"}, "not of algorithm"),
        ({"algorithm": "rsa"}, "not of algorithm"),
        ({"public_key": "-----BEGIN"}, "not PEM"),
        ({"not_before": "yesterday"}, "not a time"),
        ({"not_after": "2026-01-01T00:00:00"}, "no zone"),
        ({"builder": 1}, "exactly these fields"),
        ({"more": "x"}, "exactly these fields"),
    ],
)
def test_a_malformed_key_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrustError, match=message):
        _trust(Signer().entry() | changes)


def test_other_kinds_of_keys_are_refused() -> None:
    for public in (
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
    ):
        with pytest.raises(TrustError, match="not of algorithm"):
            _trust(Signer().entry() | {"public_key": _pem(public)})


def test_a_key_of_a_kind_that_nobody_knows_is_refused() -> None:
    pem = Signer().entry()["public_key"].splitlines()
    der = base64.b64decode("".join(pem[1:-1])).replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("268648ce3d0201"))
    text = "\n".join([pem[0], base64.b64encode(der).decode(), pem[-1], ""])
    with pytest.raises(TrustError, match="unknown kind"):
        _trust(Signer().entry() | {"public_key": text})


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"version": 2, "keys": []}', b'{"version": 1}', b'{"version": 1, "keys": [1]}']
)
def test_a_malformed_trust_root_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(data)
    with pytest.raises(TrustError, match=r"trust\.json"):
        Trust.load(path)


def test_an_absent_trust_root_names_the_command_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="helix keys init"):
        Trust.load(tmp_path / "trust.json")
