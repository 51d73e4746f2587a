"""Development keys: who may sign on this machine, and the trust root that says so.

`make` has cosign generate the releaser's key pair into `.helix/keys/` (folder 0700, key 0600)
and writes `trust.json`, which verifiers take. The builder id of these keys is `laptop`, so
that production can refuse what they sign. The private key is encrypted with the passphrase
in `COSIGN_PASSWORD`, or with the empty one when that is not set: then only the file's mode
protects it, which is enough for development and for nothing else. Production names a KMS key
instead of a file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from helix_lineage.canonical import Json, digest_bytes
from helix_lineage.errors import TrustError
from helix_lineage.paths import State
from helix_lineage.trust import Trust
from model_to_metal import tools
from model_to_metal.errors import KeysError
from model_to_metal.process import run

ROLE = "releaser"
BUILDER = "laptop"
"""What the trust root says about keys made here."""
VALID = timedelta(days=365)
_MEND = "mv .helix/keys .helix/keys.old && helix keys init"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that can sign, as cosign takes it."""

    reference: str
    """A file, or a KMS address that cosign knows."""
    key_id: str
    """`sha256:<64 hex>` of the public key's SubjectPublicKeyInfo."""
    builder: str
    """Where it signs."""

    def environment(self) -> dict[str, str]:
        """What cosign needs to use the key without asking. Never on a command line."""
        return {"COSIGN_PASSWORD": os.environ.get("COSIGN_PASSWORD", ""), "COSIGN_YES": "true"}


def make(state: State, *, now: datetime | None = None) -> bool:
    """Make the keys and the trust root; gives False when they are there already.

    Raises KeysError rather than overwrite a key, or a trust root that names another key.
    """
    secret, public = _files(state)
    if secret.exists() and state.trust.exists():
        signer(state, now=now)
        return False
    if secret.exists() != public.exists() or state.trust.exists():
        present = [path.name for path in (secret, public, state.trust) if path.exists()]
        raise KeysError(f"only {', '.join(present)} of the keys is there", where=str(state.keys), fix=_MEND)
    state.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The folder may have been there with another mode.
    state.keys.chmod(0o700)
    if not secret.exists():
        _generate(tools.ensure("cosign", state), state, secret)
    since = now or datetime.now(UTC)
    _write(state.trust, json.dumps(trust(public.read_bytes(), since=since), indent=2).encode() + b"\n", 0o644)
    return True


def trust(public_key: bytes, *, since: datetime, role: str = ROLE, builder: str = BUILDER) -> dict[str, Json]:
    """A trust root that names one key, valid for a year. Pure. Raises KeysError for another kind of key."""
    pem, key_id = describe(public_key)
    key = {
        "role": role,
        "key_id": key_id,
        "algorithm": "ecdsa-p256-sha256",
        "public_key": pem,
        "not_before": _rfc3339(since),
        "not_after": _rfc3339(since + VALID),
        "builder": builder,
    }
    return {"version": 1, "keys": [key]}


def describe(public_key: bytes) -> tuple[str, str]:
    """The PEM text and the key id of an ECDSA P-256 public key. Raises KeysError for any other."""
    try:
        key = load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeysError(f"not a public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeysError("a releaser's key is ECDSA P-256")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return pem, digest_bytes(der)


def signer(state: State, *, now: datetime | None = None) -> Signer:
    """The releaser's development key. Raises KeysError when it is absent, readable by others, or not trusted."""
    secret, public = _files(state)
    if not secret.is_file() or not public.is_file():
        raise KeysError("there is no releaser's key", where=str(secret), fix="helix keys init")
    if secret.stat().st_mode & 0o077:
        raise KeysError("others can read the releaser's key", where=str(secret), fix=f"chmod 600 {secret}")
    key_id = describe(public.read_bytes())[1]
    try:
        root = Trust.load(state.trust)
    except TrustError as error:
        raise KeysError(f"the trust root cannot be read: {error.what}", where=str(state.trust), fix=_MEND) from error
    for key in root.keys_for(ROLE, now or datetime.now(UTC)):
        if key.key_id == key_id:
            return Signer(str(secret), key_id, key.builder)
    raise KeysError(
        f"the trust root does not name the releaser's key {key_id} as valid now", where=str(state.trust), fix=_MEND
    )


def _files(state: State) -> tuple[Path, Path]:
    return state.keys / f"{ROLE}.key", state.keys / f"{ROLE}.pub"


def _generate(cosign: Path, state: State, secret: Path) -> None:
    environment = Signer(str(secret), "", BUILDER).environment()
    run([cosign, "generate-key-pair", "--output-key-prefix", ROLE], cwd=state.keys, env=environment)
    secret.chmod(0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, and never over another."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(data)
    half.chmod(mode)
    try:
        # link() refuses what exists, where rename() would replace it.
        os.link(half, path)
    except FileExistsError as error:
        raise KeysError("the trust root is there already", where=str(path)) from error
    finally:
        half.unlink()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
