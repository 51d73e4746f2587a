from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import TrustError
from model_to_metal.errors import KeysError
from model_to_metal.supply_chain import cache_keys
from model_to_metal.supply_chain.cache_keys import CacheSigner
from tests.model_to_metal.project import SINCE, make_cache_signer


@pytest.mark.parametrize(
    ("domain", "reads", "releases_from"),
    [
        ("laptop", ("laptop", "release"), ("laptop",)),
        ("pull-request", ("pull-request", "release"), None),
        ("release", ("release",), ("release",)),
    ],
)
def test_what_a_domain_may_read_and_release_from(
    tmp_path: Path, domain: str, reads: tuple[str, ...], releases_from: tuple[str, ...] | None
) -> None:
    cache_signer = make_cache_signer(tmp_path, domain)
    assert cache_signer.accepted(releasing=False) == reads
    if releases_from is None:
        with pytest.raises(KeysError, match="a pull request makes no release"):
            cache_signer.accepted(releasing=True)
    else:
        assert cache_signer.accepted(releasing=True) == releases_from


def test_a_signature_is_of_its_message_domain_and_time_only(tmp_path: Path) -> None:
    cache_signer = make_cache_signer(tmp_path)
    signature = cache_signer.sign(b"said")
    cache_signer.check(b"said", signature, "laptop", ("laptop",), SINCE)
    for arguments in (
        (b"other", signature, "laptop", ("laptop",), SINCE),
        (b"said", signature, "release", ("release",), SINCE),
        (b"said", signature, "laptop", ("release",), SINCE),
        (b"said", signature, "laptop", ("laptop",), SINCE - timedelta(seconds=1)),
    ):
        with pytest.raises(TrustError):
            cache_signer.check(*arguments)


def test_the_private_key_is_private_and_may_have_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "correct horse")
    cache_signer = make_cache_signer(tmp_path)
    path = tmp_path / "laptop.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    monkeypatch.setenv("COSIGN_PASSWORD", "wrong")
    with pytest.raises(KeysError, match="cannot be read"):
        CacheSigner.open(path, cache_signer._trust, SINCE)
    path.chmod(0o640)
    with pytest.raises(KeysError, match="others can read") as caught:
        CacheSigner.open(path, cache_signer._trust, SINCE)
    assert str(caught.value.fix).startswith("chmod 600")


def test_a_key_that_the_trust_root_does_not_name_is_refused(tmp_path: Path) -> None:
    make_cache_signer(tmp_path)
    with pytest.raises(KeysError, match="does not name"):
        CacheSigner.open(tmp_path / "laptop.key", Trust(()), SINCE)
    with pytest.raises(KeysError) as caught:
        CacheSigner.open(tmp_path / "absent.key", Trust(()), SINCE)
    assert caught.value.fix == "helix keys init"


def test_a_domain_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="one of laptop, pull-request, release"):
        make_cache_signer(tmp_path, "desktop")


def test_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(KeysError, match="Ed25519"):
        cache_keys.describe(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeysError, match="not a public key"):
        cache_keys.describe(b"garbage")
