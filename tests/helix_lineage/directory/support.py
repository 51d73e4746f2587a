"""A directory with everybody's keys, a released model, and shards that can be shown to it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from helix_lineage.attestations import dsse, promotion, revocation
from helix_lineage.attestations.trust import Trust, key_id_of
from helix_lineage.directory import admission
from helix_lineage.directory.client import DirectoryClient
from helix_lineage.directory.entries import Advance, Ending, Registration
from helix_lineage.directory.receipt import DirectoryReceipt
from helix_lineage.directory.rules import statement_of
from helix_lineage.directory.service import Directory
from helix_lineage.records.chain import Promotion, Revocation
from helix_lineage.shard import entries as shard_entries
from helix_lineage.shard.header import shard_id
from helix_lineage.tlog.checkpoint import DIRECTORY_ORIGIN, Checkpoint, sign
from helix_lineage.tlog.merkle import from_leaves, leaf_hash, prove_consistency, prove_inclusion, root
from tests.helix_lineage.support import NOW, NOW_NS, Chain, Signer, header, make_chain

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "the-token-of-the-registrant-of-these-tests"
MANY = ("--registrations", "1000000")
"""For tests whose clients register as fast as they can."""


def directory_key(seed: int = 1) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))


def key_entry(key: Ed25519PrivateKey, name: str = "laptop", role: str = "directory") -> dict[str, str]:
    public = key.public_key()
    return {
        "role": role,
        "key_id": key_id_of(public),
        "algorithm": "ed25519",
        "public_key": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "not_before": "2026-01-01T00:00:00Z",
        "not_after": "2036-01-01T00:00:00Z",
        "builder": name,
    }


@dataclass
class FakeShard:
    """A shard in memory: its key signs whatever a test wants."""

    header_bytes: bytes
    key: Ed25519PrivateKey
    entries: list[bytes] = field(default_factory=list)

    @property
    def id(self) -> str:
        return shard_id(self.header_bytes)

    @property
    def leaves(self) -> list[bytes]:
        return [leaf_hash(entry) for entry in self.entries]

    def grow(self, count: int = 1, text: str = "x") -> FakeShard:
        """Entries of an unknown kind: the directory does not look into them."""
        for _ in range(count):
            self.entries.append(shard_entries.dump([9, 9, f"{text}{len(self.entries)}"]))
        return self

    def note(self, size: int | None = None, changed: bytes | None = None) -> bytes:
        size = len(self.entries) if size is None else size
        origin = "helix.example/shard/" + self.id
        return sign(Checkpoint(origin, size, changed or root(self.leaves[:size])), self.key)

    def registration(self) -> Registration:
        return Registration(self.header_bytes, self.note(1))

    def consistency(self, since: int, size: int | None = None) -> tuple[bytes, ...]:
        size = len(self.entries) if size is None else size
        return tuple(prove_consistency(since, size, from_leaves(self.leaves)))

    def advance(self, since: int) -> Advance:
        return Advance(self.id, self.note(), self.consistency(since))

    def end(self, since: int) -> Ending:
        self.entries.append(shard_entries.Close(NOW_NS).to_bytes())
        size = len(self.entries)
        inclusion = tuple(prove_inclusion(size - 1, size, from_leaves(self.leaves)))
        return Ending(self.id, self.note(), self.consistency(since), self.entries[-1], inclusion)


@dataclass
class Office:
    """Who signs what, and the directory's folder."""

    root: Path
    chain: Chain = field(default_factory=make_chain)
    key: Ed25519PrivateKey = field(default_factory=directory_key)
    name: str = "laptop"
    releaser: Signer = field(default_factory=lambda: Signer(not_after="2036-01-01T00:00:00Z"))
    promoter: Signer = field(default_factory=lambda: Signer(role="promoter", not_after="2036-01-01T00:00:00Z"))
    revoker: Signer = field(default_factory=lambda: Signer(role="revoker", not_after="2036-01-01T00:00:00Z"))
    clock: Iterator[int] = field(default_factory=lambda: itertools.count(NOW_NS, 1_000_000))

    @property
    def folder(self) -> Path:
        return self.root / "directory"

    @property
    def origin(self) -> str:
        return DIRECTORY_ORIGIN + self.name

    def trust_json(self) -> bytes:
        people = [signer.entry() for signer in (self.releaser, self.promoter, self.revoker)]
        return json.dumps({"version": 1, "keys": [*people, key_entry(self.key, self.name)]}).encode()

    def trust(self) -> Trust:
        return Trust.parse(self.trust_json())

    def open(self) -> Directory:
        return Directory(self.folder, self.origin, self.key, self.trust(), now=lambda: next(self.clock))

    def released(self, chain: Chain | None = None) -> bytes:
        return self.releaser.bundle((chain or self.chain).statement())

    def promoted(self, generation: int = 1, previous: str | None = None, **changes: Any) -> tuple[bytes, str]:
        """Bundle and digest of a promotion."""
        parents = {"release": self.chain.release.digest} | ({"previous": previous} if previous else {})
        parameters = {"model": "m", "environment": "staging", "generation": generation} | changes
        record = Promotion(parents=parents, parameters=parameters)
        statement = self._statement(str(self.chain.release.parameters["image"]), promotion.PREDICATE_TYPE)
        return self.promoter.bundle(statement | {"predicate": {"promotion": record.to_json()}}), record.digest

    def revoked(self, kind: str, target: str, since: datetime = NOW, index: int = 0, **more: Any) -> bytes:
        fields = {"kind": kind, "target": target, "since": since.isoformat(), "index": index, "reason": "leaked"}
        record = Revocation(parameters=fields | more)
        statement = self._statement(target, revocation.PREDICATE_TYPE)
        return self.revoker.bundle(statement | {"predicate": {"revocation": record.to_json()}})

    def shard(self, seed: int = 50, **changes: Any) -> FakeShard:
        key = directory_key(seed)
        entry = header(self.chain, public_key=key.public_key().public_bytes_raw(), **changes).to_bytes()
        return FakeShard(entry, key, [entry])

    def write_keys(self) -> tuple[Path, Path]:
        """`(key, trust)` as files, for a process; beside them who may register, and the token."""
        secret, trust = self.root / "directory.key", self.root / "trust.json"
        self.token.write_text(TOKEN)
        self.token.chmod(0o600)
        (self.root / "registrants").write_text(admission.line("tests", TOKEN))
        secret.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        secret.chmod(0o600)
        trust.write_bytes(self.trust_json())
        return secret, trust

    @property
    def token(self) -> Path:
        return self.root / "directory.token"

    def client(self, url: str, *, seen: bytes | None = None, token: str = TOKEN) -> DirectoryClient:
        """A client that may register."""
        return DirectoryClient(url, self.trust(), seen=seen, token=lambda: token, timeout_s=60)

    def _statement(self, digest: str, predicate_type: str) -> dict[str, Any]:
        subject = [{"name": "helix/m", "digest": {"sha256": digest.removeprefix("sha256:")}}]
        return {"_type": dsse.STATEMENT_TYPE, "subject": subject, "predicateType": predicate_type}


def submit(directory: Directory, bundle: bytes, seen: int = 0) -> DirectoryReceipt:
    return directory.take(statement_of(bundle), bundle=bundle, seen=seen)


@dataclass
class Running:
    """A directory process."""

    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def start(
    folder: Path,
    key: Path,
    trust: Path,
    port: int = 0,
    *,
    environment: Mapping[str, str] | None = None,
    more: Sequence[str] = (),
    program: Sequence[str] = ("-m", "helix_lineage"),
) -> Running:
    """A real directory process, once it listens; the registrants' file lies beside its key."""
    command = [sys.executable, *program, "directory", "serve", str(folder), "--json"]
    options = ["--key", str(key), "--trust", str(trust), "--port", str(port), *more]
    options += ["--registrants", str(key.with_name("registrants"))]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the directory ended with status {process.wait()}"
    return Running(process, json.loads(line)["url"])


@contextmanager
def running(
    office: Office, port: int = 0, *more: str, program: Sequence[str] = ("-m", "helix_lineage")
) -> Iterator[Running]:
    """A directory process until the block ends."""
    key, trust = office.write_keys()
    found = start(office.folder, key, trust, port, more=more, program=program)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.terminate()
        found.process.wait(30)


def now() -> datetime:
    return datetime.now(UTC)
