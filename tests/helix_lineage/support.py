"""Makes what the tests are about: a release with its chain and keys, and logs with real shards."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from helix_lineage.attestations import dsse
from helix_lineage.attestations.release import PREDICATE_TYPE
from helix_lineage.attestations.trust import Trust, key_id_of
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.formats.typed import Tensor, encode
from helix_lineage.records.chain import (
    Artifact,
    CompiledEngine,
    DataCommit,
    ExportedModel,
    FirstRelease,
    GuardVerdict,
    ImageBuild,
    Record,
    RegressionVerdict,
    Release,
    TrainedWeights,
)
from helix_lineage.shard import Prediction, ShardHeader, ShardWriter
from helix_lineage.shard.reader import Log
from helix_lineage.tlog.layout import ShardFolder

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOW_NS = int(NOW.timestamp() * 1e9)


def digest(text: str) -> str:
    return digest_bytes(text.encode())


@dataclass
class Signer:
    """A releaser: a key, and the trust root that names it."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    builder: str = "laptop"
    not_before: str = "2026-01-01T00:00:00Z"
    not_after: str = "2027-01-01T00:00:00Z"
    role: str = "releaser"

    def entry(self) -> dict[str, str]:
        public = self.key.public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return {
            "role": self.role,
            "key_id": key_id_of(public),
            "algorithm": "ecdsa-p256-sha256",
            "public_key": pem.decode(),
            "not_before": self.not_before,
            "not_after": self.not_after,
            "builder": self.builder,
        }

    def trust_json(self) -> bytes:
        return json.dumps({"version": 1, "keys": [self.entry()]}).encode()

    def trust(self) -> Trust:
        return Trust.parse(self.trust_json())

    def bundle(self, statement: Mapping[str, Any], payload_type: str = dsse.PAYLOAD_TYPE) -> bytes:
        """A Sigstore bundle v0.3, as cosign writes it for a key."""
        payload = json.dumps(statement).encode()
        message = dsse.pre_authentication_encoding(payload_type, payload)
        signature = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }
        material = {"publicKey": {"hint": "key"}, "tlogEntries": []}
        value = {"mediaType": dsse.BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
        return json.dumps(value).encode()


@dataclass
class Chain:
    """A release and every record below it; change `parts` before asking for anything."""

    parts: dict[str, Record]

    @property
    def release(self) -> Release:
        found = self.parts["release"]
        assert isinstance(found, Release)
        return found

    @property
    def records(self) -> dict[str, Record]:
        return {record.digest: record for role, record in self.parts.items() if role != "release"}

    def statement(self, **changes: Any) -> dict[str, Any]:
        records = {key: record.to_json() for key, record in self.records.items()}
        image = str(self.release.parameters["image"])
        return {
            "_type": dsse.STATEMENT_TYPE,
            "subject": [{"name": "127.0.0.1:5070/helix/m", "digest": {"sha256": image.removeprefix("sha256:")}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"release": self.release.to_json(), "records": records},
        } | changes


def make_chain(
    image: str = digest("image"),
    filesystem: str = digest("files"),
    model: str = "m",
    *,
    guard: Any = True,
    regression: Any = True,
    environment: str = digest("environment"),
    first: bool = False,
) -> Chain:
    """A whole chain; `guard` and `regression` are what the verdicts say; `first`: of version 1, without an engine."""
    shared = {"model": model, "source": digest("source"), "environment": environment}
    guarded = GuardVerdict(
        parameters={"model": model, "source": digest("s"), "locks": {}, "findings": [], "passed": guard}
    )
    data = DataCommit(
        parameters={"model": model, "dvc_lock": digest("dvc.lock"), "files": []},
        outputs=(Artifact("weights.pt", digest("pt"), 3),),
    )
    weights = TrainedWeights(parents={"data": data.digest}, parameters={**shared, "origin": "imported"})
    exported = ExportedModel(parents={"weights": weights.digest}, parameters=shared)
    engine = CompiledEngine(parents={"exported": exported.digest}, parameters=shared)
    served = exported if first else engine
    regressed = RegressionVerdict(
        parents={"candidate": served.digest, "weights": weights.digest, "data": data.digest},
        parameters={**shared, "cases": [], "passed": regression},
    )
    built = ImageBuild(
        parents={"model": served.digest}, parameters={**shared, "image": image, "filesystem": filesystem}
    )
    parts: dict[str, Record] = {
        "image": built,
        "guard": guarded,
        "data": data,
        "weights": weights,
        "exported": exported,
        "regression": regressed,
    }
    if not first:
        parts["engine"] = engine
    release = (FirstRelease if first else Release)(
        parents={role: record.digest for role, record in parts.items()},
        parameters={"model": model, "commit": "c" * 40, "builder": "laptop", "image": image},
    )
    return Chain({**parts, "release": release})


def typed_input(seed: int, task: str = "design", structure: bytes = b"ATOM") -> bytes:
    return encode(
        [
            Tensor("task", "BYTES", (1,), (task.encode(),)),
            Tensor("structure", "BYTES", (1,), (structure,)),
            Tensor("seed", "UINT64", (1,), seed.to_bytes(8, "little")),
        ]
    )


def typed_output(text: str) -> bytes:
    return encode([Tensor("sequence", "BYTES", (1,), (text.encode(),)), Tensor("score", "FP32", (1,), b"\0\0\x80?")])


_requests = itertools.count(1)


def request(seed: int = 7, count: int = 1, output: str = "MK", request_id: bytes | None = None) -> list[Prediction]:
    """The predictions of one request."""
    name = request_id or next(_requests).to_bytes(16, "big")
    given = typed_input(seed)
    return [
        Prediction(name, at, count, given, typed_output(f"{output}{at}"), seed, "strict", NOW_NS, NOW_NS + 5)
        for at in range(count)
    ]


def die(writer: ShardWriter) -> ShardFolder:
    """End a writer, and leave its files as they lie when its process ends without a word."""
    folder = ShardFolder(writer.folder)
    copy = folder.root.with_name(f"{folder.id}.copy")
    shutil.copytree(folder.root, copy)
    writer.close()
    shutil.rmtree(folder.root)
    copy.rename(folder.root)
    return folder


def header(chain: Chain | None = None, **changes: Any) -> ShardHeader:
    fields: dict[str, Any] = {
        "release": chain.release.digest if chain else None,
        "image": chain.release.parameters["image"] if chain else None,
        "machine_class": "x86-64-v4",
        "libraries": {"numpy": "2.3.1", "onnxruntime": "1.32.0"},
        "model": "m",
    }
    return ShardHeader(**(fields | changes))


@dataclass
class World:
    """A signed release, and a log that its server writes."""

    root: Path
    chain: Chain
    signer: Signer

    @property
    def log_dir(self) -> Path:
        return self.root / "log"

    @property
    def log(self) -> Log:
        return Log(self.log_dir)

    @property
    def bundle(self) -> bytes:
        return self.signer.bundle(self.chain.statement())

    @property
    def sources(self) -> ReleaseSources:
        return ReleaseSources(trust=self.signer.trust())

    def open(self) -> ShardWriter:
        clock = itertools.count(NOW_NS)
        return ShardWriter.create(
            self.log_dir, header(self.chain), now=lambda: next(clock), release=self._bundle_once()
        )

    def shard(self, requests: Sequence[Sequence[Prediction]]) -> list[str]:
        """A closed shard; gives the prediction ids."""
        with self.open() as writer:
            return [name for items in requests for name in writer.append(items)]

    def _bundle_once(self) -> bytes:
        path = self.root / "release.sigstore.json"
        if not path.exists():
            path.write_bytes(self.bundle)
        return path.read_bytes()
