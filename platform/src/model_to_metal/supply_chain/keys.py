"""Development keys: who may sign on this machine, and the trust root that says so.

`make` has cosign generate a key pair a role (and makes those of the stage cache and the directory itself) into
`.helix/keys/` (folder 0700, keys 0600) and writes `trust.json`, which verifiers take. A folder
that lacks a role gains it; what is there is left alone. The builder id of these keys is
`laptop` unless another is named, so that production can refuse what they sign; the cache key's is the machine's trust
domain. The private keys are encrypted with the passphrase in `COSIGN_PASSWORD`, or with the
empty one when that is not set: then only the files' mode protects them, which is enough for
development and for nothing else. Production names a KMS key instead of a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from helix_lineage.attestations.trust import ECDSA, ED25519, Trust
from helix_lineage.directory import admission
from helix_lineage.errors import TrustError
from helix_lineage.formats.canonical import Json, digest_bytes
from helix_lineage.formats.named import read_named
from helix_lineage.formats.untrusted import MAX_BUNDLE_BYTES, read
from helix_lineage.paths import State
from model_to_metal.errors import KeysError, ToolError
from model_to_metal.host import tools
from model_to_metal.host.process import reason, run
from model_to_metal.supply_chain import cache_keys

ROLE = "releaser"
PROMOTER = "promoter"
REVOKER = "revoker"
ROLES = (ROLE, PROMOTER, REVOKER)
"""The roles that sign with cosign, and have a key of their own here."""
CACHE = cache_keys.ROLE
DIRECTORY = "directory"
"""The role whose key the directory itself holds: not encrypted, for a service has nobody to ask."""
OTHERS = (CACHE, DIRECTORY)
"""The roles whose keys are Ed25519, and sign without cosign."""
BUILDER = cache_keys.LAPTOP
"""What the trust root says about keys made here, unless another builder is named."""
BUILDERS = (BUILDER, "cluster", "github")
"""Who may release: a person's machine, the pipeline on a cluster, a hosted runner."""
VALID = timedelta(days=365)
_MEND = "mv .helix/keys .helix/keys.old && helix keys init"


@dataclass(frozen=True, slots=True)
class SigningKey:
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


def make(
    state: State, *, domain: str = cache_keys.LAPTOP, builder: str = BUILDER, now: datetime | None = None
) -> tuple[str, ...]:
    """Make the keys that are missing, and the trust root that names them; gives the roles that were added.

    `domain` is the cache key's, `builder` the others', where those are made. Raises KeysError rather than
    overwrite a key, or when the trust root names another one.
    """
    since = now or datetime.now(UTC)
    named = _named(state)
    missing = [role for role in (*ROLES, *OTHERS) if not _is_there(state, role, named)]
    for role in sorted(named & set(ROLES)):
        signer(state, role=role, now=since)
    if CACHE in named:
        cache_signer(state, now=since)
    state.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The folder may have been there with another mode.
    state.keys.chmod(0o700)
    for role in missing:
        _make_pair(state, role)
    added = tuple(role for role in (*ROLES, *OTHERS) if role not in named)
    if added:
        root = {"version": 1, "keys": []}
        if state.trust.exists():
            root = json.loads(read(state.trust, limit=MAX_BUNDLE_BYTES, follow=True))
        for role in added:
            pem = _files(state, role)[1].read_bytes()
            whose = domain if role == CACHE else builder
            root["keys"] += trust(pem, since=since, role=role, builder=whose)["keys"]
        _write(state.trust, json.dumps(root, indent=2).encode() + b"\n", 0o644)
    registrant(state)
    return added


def registrant(state: State) -> tuple[Path, Path]:
    """`(token, registrants)`: what registers shards at this machine's directory, and the directory's list of who may.

    Both are made when they are missing; other registrants in the list stay.
    """
    token, known = state.keys / "directory.token", state.keys / "registrants"
    if not token.exists():
        half = token.with_name(f".{token.name}.{os.getpid()}")
        _write(half, f"{admission.new_token()}\n".encode(), 0o600)
        with contextlib.suppress(FileExistsError):  # another process made one meanwhile: then that is it
            token.hardlink_to(half)
        half.unlink()
    mine = admission.line(BUILDER, admission.read_token(token))
    rows: list[str] = []
    if known.exists():
        admission.Registrants.load(known)
        rows = [f"{row}\n" for row in known.read_text("ascii").splitlines()]
    if mine not in rows:
        others = [row for row in rows if row.split()[:1] != [BUILDER]]
        _write(known, "".join([*others, mine]).encode(), 0o644)
    return token, known


def trust(public_key: bytes, *, since: datetime, role: str = ROLE, builder: str = BUILDER) -> dict[str, Json]:
    """A trust root that names one key, valid for a year. Pure. Raises KeysError for another kind of key."""
    algorithm = ED25519 if role in OTHERS else ECDSA
    pem, key_id = describe(public_key, algorithm)
    key = {
        "role": role,
        "key_id": key_id,
        "algorithm": algorithm,
        "public_key": pem,
        "not_before": _rfc3339(since),
        "not_after": _rfc3339(since + VALID),
        "builder": builder,
    }
    return {"version": 1, "keys": [key]}


def describe(public_key: bytes, algorithm: str = ECDSA) -> tuple[str, str]:
    """The PEM text and the key id of a public key of that algorithm. Raises KeysError for any other."""
    try:
        key = load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeysError(f"not a public key: {error}") from error
    if algorithm == ED25519 and not isinstance(key, ed25519.Ed25519PublicKey):
        raise KeysError("a key of the cache or the directory is Ed25519")
    if algorithm == ECDSA and not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise KeysError("a key that signs with cosign is ECDSA P-256")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return pem, digest_bytes(der)


def signer(state: State, *, role: str = ROLE, now: datetime | None = None) -> SigningKey:
    """A role's development key. Raises KeysError when it is absent, readable by others, or not trusted."""
    secret, public = _files(state, role)
    if not secret.is_file() or not public.is_file():
        raise KeysError(f"there is no {role}'s key", where=str(secret), fix="helix keys init")
    if secret.stat().st_mode & 0o077:
        raise KeysError(f"others can read the {role}'s key", where=str(secret), fix=f"chmod 600 {secret}")
    key_id = describe(read_named(public, f"the {role}'s public key", limit=cache_keys.KEY_BYTES))[1]
    for key in _root(state).keys_for(role, now or datetime.now(UTC)):
        if key.key_id == key_id:
            return SigningKey(str(secret), key_id, key.builder)
    raise KeysError(
        f"the trust root does not name the {role}'s key {key_id} as valid now", where=str(state.trust), fix=_MEND
    )


def cache_signer(state: State, *, now: datetime | None = None) -> cache_keys.CacheSigner:
    """This machine's cache key. Raises KeysError when it is absent, readable by others, or not trusted."""
    secret = _files(state, CACHE)[0]
    if not secret.is_file():
        raise KeysError("there is no cache key", where=str(secret), fix="helix keys init")
    return cache_keys.CacheSigner.open(secret, _root(state), now or datetime.now(UTC))


def elsewhere(reference: str, cosign: Path, root: Trust, *, role: str, now: datetime) -> SigningKey:
    """A key that cosign reaches (a KMS, a token, a file). Raises KeysError when it is not trusted for the role."""
    if os.path.lexists(reference):  # else it is a KMS's address, and cosign says what is wrong with it
        read_named(Path(reference), f"the {role}'s key", limit=cache_keys.KEY_BYTES)
    try:
        pem = run([cosign, "public-key", "--key", reference], env=SigningKey(reference, "", "").environment())
    except ToolError as error:
        fix = "name a key that cosign reaches from here: a file, or the address of a KMS that you are logged in to"
        what = f"cosign cannot read the {role}'s key: {reason(error)}"
        raise KeysError(what, where=reference, fix=fix, raw=error.raw) from error
    key_id = describe(pem)[1]
    try:
        key = root.key_for(role, now, key_id)
    except TrustError as error:
        raise KeysError(f"the trust root does not name this {role}'s key: {error.what}", where=reference) from error
    return SigningKey(reference, key_id, key.builder)


def _files(state: State, role: str) -> tuple[Path, Path]:
    return state.keys / f"{role}.key", state.keys / f"{role}.pub"


def _root(state: State) -> Trust:
    try:
        return Trust.load(state.trust)
    except TrustError as error:
        raise KeysError(f"the trust root cannot be read: {error.what}", where=str(state.trust), fix=_MEND) from error


def _named(state: State) -> set[str]:
    """The roles that the trust root names a key of."""
    return {key.role for key in _root(state).keys} if state.trust.exists() else set()


def _is_there(state: State, role: str, named: set[str]) -> bool:
    """Is the role's pair there? Raises KeysError when half of it is, or when the trust root names a lost one."""
    secret, public = _files(state, role)
    present = [path.name for path in (secret, public) if path.exists()]
    present += [state.trust.name] if role in named else []
    if len(present) == 1 or (secret.exists() != public.exists()):
        raise KeysError(f"only {', '.join(present)} of the {role}'s keys is there", where=str(state.keys), fix=_MEND)
    return secret.exists()


def _make_pair(state: State, role: str) -> None:
    if role == CACHE:
        cache_keys.generate(*_files(state, role))
    elif role == DIRECTORY:
        _generate_directory(state)
    else:
        _generate(tools.ensure("cosign", state), state, role)


def _generate(cosign: Path, state: State, role: str) -> None:
    secret = _files(state, role)[0]
    environment = SigningKey(str(secret), "", BUILDER).environment()
    try:
        run([cosign, "generate-key-pair", "--output-key-prefix", role], cwd=state.keys, env=environment)
    except ToolError as error:
        what = f"cosign cannot make the {role}'s keys: {reason(error)}"
        raise KeysError(what, where=str(state.keys), fix="helix doctor", raw=error.raw) from error
    secret.chmod(0o600)


def _generate_directory(state: State) -> None:
    secret, public = _files(state, DIRECTORY)
    key = ed25519.Ed25519PrivateKey.generate()
    _write(secret, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(data)
    half.chmod(mode)
    half.replace(path)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
