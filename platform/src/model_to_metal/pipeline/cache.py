"""The stage cache: what a stage would give again needs not be made again.

A key covers everything that may change a stage's bytes: its code digest, parameters,
parents, environment, target and machine class. Under a key stands the digest of the record
that the stage gave; the store has the record and its files, or the entry does not count.

An entry is signed by the trust domain that made it (`seals`). One that is unsigned, changed, of
a domain that the run does not take, or was moved to another key counts as absent, and says why.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from helix_lineage.errors import CanonicalError, TrustError
from helix_lineage.formats.canonical import Json, check_digest, digest_bytes, dumps, loads
from helix_lineage.records.chain import Record
from model_to_metal.stages.interface import StageSettings
from model_to_metal.supply_chain.cache_keys import CacheSigner

VERSION = 1
CONTEXT = b"helix.example/cache-entry/v1\n"
"""Stands before what is signed, so that no signature of a cache key means anything elsewhere."""

_FIELDS = {"version", "key", "record", "time", "domain", "key_id", "signature"}


class Planned(Protocol):
    """What a key needs of a stage's plan."""

    @property
    def plan(self) -> StageSettings:
        """What is settled about the stage."""
        ...

    @property
    def code(self) -> str:
        """Digest of its import closure."""
        ...

    @property
    def environment(self) -> str:
        """Digest of what its environment is made from."""
        ...

    @property
    def inputs(self) -> Mapping[str, str]:
        """Role → digest of sources that it reads besides."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Everything that a stage's bytes depend on."""

    stage: str
    code: str
    """Digest of the stage's import closure."""
    environment: str
    """Digest of what the stage's environment is made from."""
    parameters: Mapping[str, Json] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    """Role → digest of a parent record."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role → digest of a source tree or lock that the stage reads besides its parents."""
    target: str | None = None
    machine_class: str | None = None

    @classmethod
    def of(cls, stage: str, planned: Planned, parents: Mapping[str, Record]) -> Key:
        """The key of a planned stage, once its parents are known: the same here and on a cluster."""
        return cls(
            stage=stage,
            code=planned.code,
            environment=planned.environment,
            parameters=planned.plan.parameters,
            parents={role: record.digest for role, record in parents.items()},
            inputs=planned.inputs,
            target=planned.plan.target,
            machine_class=planned.plan.machine_class,
        )

    @property
    def digest(self) -> str:
        """The key itself."""
        return digest_bytes(dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache knows under a key."""

    record: str
    """Digest of the record."""
    time: str
    """When it was made, RFC 3339 in UTC."""
    domain: str = ""
    """The trust domain that made it; the signature says so."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What lies under a key."""

    entry: Entry | None = None
    """Whole, signed and acceptable; or None."""
    refusal: str | None = None
    """Why what lies there does not count; None when nothing does, or it counts."""


class Cache:
    """Keys and signed entries as small files in one folder.

    Without a seal there is nobody to sign or to believe: nothing is found and nothing is kept.
    """

    def __init__(self, root: Path, cache_signer: CacheSigner | None = None) -> None:
        self._root = root
        self._cache_signer = cache_signer

    def find(self, key: Key, accepted: Sequence[str], at: datetime) -> Lookup:
        """The entry under `key`, if it is signed by one of the domains accepted."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Lookup()
        except OSError as error:
            return Lookup(refusal=f"it cannot be read: {error.strerror}")
        if self._cache_signer is None:
            return Lookup(refusal="there is no cache key to check it by; run: helix keys init")
        try:
            return Lookup(_open(data, key, self._cache_signer, accepted, at))
        except (TrustError, CanonicalError) as error:
            return Lookup(refusal=error.what)

    def remember(self, key: Key, entry: Entry) -> None:
        """Sign and note what a stage gave. Atomic: readers see the old entry or the new one."""
        if self._cache_signer is None:
            return
        said = _said(key, entry.record, entry.time, self._cache_signer.domain)
        signature = base64.b64encode(self._cache_signer.sign(CONTEXT + dumps(said))).decode()
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._root, prefix=".new-", delete=False) as file:
            file.write(dumps({**said, "key_id": self._cache_signer.key_id, "signature": signature}))
        Path(file.name).replace(self.path(key))

    def path(self, key: Key) -> Path:
        """The file that holds the entry under `key`."""
        return self._root / f"{key.stage}-{key.digest.removeprefix('sha256:')}.json"


def _said(key: Key, record: str, time: str, domain: str) -> dict[str, Json]:
    """What the signature covers: the whole key too, so that an entry holds at its own place only."""
    return {"version": VERSION, "key": asdict(key), "record": record, "time": time, "domain": domain}


def _open(data: bytes, key: Key, cache_signer: CacheSigner, accepted: Sequence[str], at: datetime) -> Entry:
    """Read an entry and check whose it is. Raises TrustError or CanonicalError."""
    value = loads(data)
    if not isinstance(value, dict) or "signature" not in value:
        raise TrustError("it is not signed")
    if set(value) != _FIELDS or value["version"] != VERSION:
        raise TrustError(f"it is not a cache entry of version {VERSION}")
    record, time, domain = check_digest(value["record"]), value["time"], value["domain"]
    try:
        signature = base64.b64decode(value["signature"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise TrustError("its signature is not base64") from error
    if dumps(value["key"]) != dumps(asdict(key)):
        raise TrustError("it was moved here: it was made for another key")
    cache_signer.check(CONTEXT + dumps(_said(key, record, time, domain)), signature, domain, accepted, at)
    return Entry(record, time, domain)
