from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from helix_lineage.attestations.trust import ED25519, Trust
from helix_lineage.directory import admission
from helix_lineage.directory.admission import read_token
from helix_lineage.directory.service import load_key, origin_of
from helix_lineage.errors import DirectoryError
from helix_lineage.paths import State
from model_to_metal.errors import AttestError, KeysError
from model_to_metal.host import tools
from model_to_metal.supply_chain import keys
from model_to_metal.supply_chain.cosign import CosignSigner


def test_keys_are_private_and_the_trust_root_names_them(state: State) -> None:
    assert keys.make(state) == ("releaser", "promoter", "revoker", "cache", "directory")
    assert state.keys.stat().st_mode & 0o777 == 0o700
    assert [key.role for key in Trust.load(state.trust).keys] == [*keys.ROLES, *keys.OTHERS]
    for key in Trust.load(state.trust).keys:
        assert (state.keys / f"{key.role}.key").stat().st_mode & 0o777 == 0o600
        assert key.builder == "laptop"
        if key.role == keys.DIRECTORY:
            secret = load_key(state.keys / "directory.key")
            assert origin_of(secret, Trust.load(state.trust), datetime.now(UTC)) == "helix.example/directory/laptop"
        else:
            mine = keys.cache_signer(state) if key.role == keys.CACHE else keys.signer(state, role=key.role)
            assert mine.key_id == key.key_id
        assert key.holds(datetime.now(UTC))
        assert not key.holds(datetime.now(UTC) + timedelta(days=366))


def test_this_machine_has_a_token_that_its_directory_knows(signing: State) -> None:
    token, known = keys.registrant(signing)
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text()
    assert admission.Registrants.load(known).who([f"Bearer {read_token(token)}"]) == "laptop"
    assert secret.strip() not in known.read_text()
    known.write_text(known.read_text() + admission.line("another", admission.new_token()))
    before = known.read_text()
    assert keys.make(signing) == ()
    assert (token.read_text(), known.read_text()) == (secret, before)  # neither is made again
    token.unlink()  # an older checkout has none, and one that was lost is replaced
    keys.registrant(signing)
    assert sorted(admission.Registrants.load(known).digests) == ["another", "laptop"]
    assert admission.Registrants.load(known).who([f"Bearer {read_token(token)}"]) == "laptop"
    assert sorted(path.name for path in signing.keys.iterdir() if path.name.startswith(".")) == []
    token.chmod(0o644)
    with pytest.raises(DirectoryError, match="others can read the directory's token"):
        keys.registrant(signing)


def test_a_folder_that_lacks_a_role_gains_it_and_keeps_the_rest(signing: State) -> None:
    root = json.loads(signing.trust.read_text())
    root["keys"] = [key for key in root["keys"] if key["role"] not in ("promoter", "cache", "directory")]
    signing.trust.write_text(json.dumps(root))
    for role in ("promoter", "cache", "directory"):
        for suffix in ("key", "pub"):
            (signing.keys / f"{role}.{suffix}").unlink()
    before = {path.name: path.read_bytes() for path in signing.keys.glob("releaser.*")}
    assert keys.make(signing) == ("promoter", "cache", "directory")
    assert {path.name: path.read_bytes() for path in signing.keys.glob("releaser.*")} == before
    found = json.loads(signing.trust.read_text())["keys"]
    assert [key["role"] for key in found] == ["releaser", "revoker", "promoter", "cache", "directory"]
    assert found[:2] == root["keys"]
    assert keys.signer(signing, role="promoter").key_id == found[2]["key_id"]
    assert keys.make(signing) == ()


def test_making_keys_again_changes_nothing(signing: State) -> None:
    before = {path.name: path.read_bytes() for path in signing.keys.iterdir()}
    assert not keys.make(signing)
    assert {path.name: path.read_bytes() for path in signing.keys.iterdir()} == before


def test_a_trust_root_that_names_another_key_is_not_overwritten(signing: State) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    planted = json.dumps(keys.trust(pem, since=datetime.now(UTC)))
    signing.trust.write_text(planted)
    with pytest.raises(KeysError, match="does not name") as caught:
        keys.make(signing)
    assert caught.value.fix
    assert signing.trust.read_text() == planted


@pytest.mark.parametrize(
    "gone",
    ["releaser.key", "releaser.pub", "promoter.key", "cache.key", "cache.pub", "directory.pub", "directory.key"],
)
def test_half_a_key_pair_is_not_completed(signing: State, gone: str) -> None:
    (signing.keys / gone).unlink()
    before = sorted(path.name for path in signing.keys.iterdir())
    with pytest.raises(KeysError):
        keys.make(signing)
    assert sorted(path.name for path in signing.keys.iterdir()) == before


def test_the_cache_key_is_of_the_machine_s_domain(state: State) -> None:
    keys.make(state, domain="pull-request")
    assert keys.cache_signer(state).domain == "pull-request"
    assert {key.role: key.builder for key in Trust.load(state.trust).keys} == {
        "releaser": "laptop", "promoter": "laptop", "revoker": "laptop", "directory": "laptop", "cache": "pull-request",
    }  # fmt: skip


def test_a_lost_trust_root_is_made_again_from_the_key(signing: State) -> None:
    key_id = keys.signer(signing).key_id
    signing.trust.unlink()
    assert keys.make(signing)
    assert keys.signer(signing).key_id == key_id


def test_a_key_that_others_can_read_is_not_used(signing: State) -> None:
    (signing.keys / "releaser.key").chmod(0o644)
    with pytest.raises(KeysError, match="others can read") as caught:
        keys.signer(signing)
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("chmod 600")


def test_an_expired_key_is_not_used(signing: State) -> None:
    with pytest.raises(KeysError, match="valid now"):
        keys.signer(signing, now=datetime.now(UTC) + keys.VALID + timedelta(seconds=1))


def test_without_keys_the_message_says_how_to_make_them(state: State) -> None:
    with pytest.raises(KeysError) as caught:
        keys.signer(state)
    assert caught.value.fix == "helix keys init"


def test_the_passphrase_protects_the_key(
    state: State, built_tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "correct horse")
    keys.make(state)
    signer = keys.signer(state)
    command = [built_tools / "cosign", "public-key", "--key", signer.reference]
    assert subprocess.run(command, env={**signer.environment(), "HOME": str(tmp_path)}, check=False).returncode == 0
    wrong = {"COSIGN_PASSWORD": "", "HOME": str(tmp_path)}
    assert subprocess.run(command, env=wrong, check=False, capture_output=True).returncode != 0
    assert "correct horse" not in "".join(path.read_text() for path in state.keys.iterdir())


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
def test_another_kind_of_key_is_refused(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeysError, match="P-256"):
        keys.describe(pem)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        with pytest.raises(KeysError, match="Ed25519"):
            keys.describe(pem, ED25519)
    with pytest.raises(KeysError, match="not a public key"):
        keys.describe(b"garbage")


def test_what_cosign_says_becomes_a_sentence_with_its_last_line(signing: State, tmp_path: Path) -> None:
    """Its words as they are: warnings, the error twice, and a command line of ours."""
    cosign, absent = tools.ensure("cosign", signing), str(tmp_path / "absent.key")
    root, now = Trust.load(signing.trust), datetime.now(UTC)
    with pytest.raises(KeysError) as unread:
        keys.elsewhere(absent, cosign, root, role=keys.PROMOTER, now=now)
    assert str(unread.value) == (
        f"cosign cannot read the promoter's key: open {absent}: no such file or directory ({absent}); "
        "name a key that cosign reaches from here: a file, or the address of a KMS that you are logged in to"
    )
    with pytest.raises(AttestError) as unsigned:
        CosignSigner(cosign, keys.SigningKey(absent, "", "laptop")).statement(b"{}")
    assert unsigned.value.what.startswith(f"cosign could not sign with the key {absent}: ")
    assert "error during command execution" not in str(unsigned.value)
    assert unsigned.value.raw is not None
    assert "error during command execution" in unsigned.value.raw
    with pytest.raises(KeysError, match="cosign cannot make the revoker's keys: "):
        keys._generate(Path("/bin/false"), signing, keys.REVOKER)
