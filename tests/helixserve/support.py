"""A small image's files, a signed release of them, and a server that runs on them: all real."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper

from helix_lineage.attestations.dsse import BUNDLE_TYPE, PAYLOAD_TYPE, STATEMENT_TYPE, pre_authentication_encoding
from helix_lineage.attestations.promotion import PREDICATE_TYPE as PROMOTION
from helix_lineage.attestations.release import PREDICATE_TYPE
from helix_lineage.attestations.trust import key_id_of
from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.records.chain import (
    Artifact,
    CompiledEngine,
    DataCommit,
    ExportedModel,
    GuardVerdict,
    ImageBuild,
    Promotion,
    Record,
    RegressionVerdict,
    Release,
    TrainedWeights,
    from_json,
)
from helix_lineage.shard import Prediction
from helixserve.integrity import readiness
from helixserve.integrity.readiness import VerifiedImage
from helixserve.settings import Settings
from tests.ports import free_port
from tests.waiting import LONGEST_S, until

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).parent / "tiny"
IMAGE = digest_bytes(b"the manifest of the image")
BUILDER = "laptop"


def tiny_graph() -> bytes:
    """x FP32[1,8] → y FP32[1,8]: a product, a bias and an Erf, with fixed weights."""
    generator = np.random.Philox(key=1)
    weights = (generator.random_raw(72) >> np.uint64(40)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
            helper.make_node("Erf", ["h"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [
            numpy_helper.from_array(weights[:64].reshape(8, 8), "w"),
            numpy_helper.from_array(weights[64:], "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


@dataclass
class Place:
    """The files of an image in a folder, and the mounts beside it."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    promoter: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def home(self) -> Path:
        return self.root / "opt" / "helix"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def trust(self) -> Path:
        return self.folder / "trust.json"

    @property
    def release(self) -> Path:
        return self.folder / "release.sigstore.json"

    @property
    def promotion(self) -> Path:
        return self.folder / "promotion.sigstore.json"

    def environment(self, **more: str) -> dict[str, str]:
        """The process environment of a server on these files."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELIX_", "BENTOML_"))}
        source = [self.home / "model" / "src", ROOT / "lineage" / "src", ROOT / "platform" / "src"]
        return kept | {
            "PYTHONPATH": os.pathsep.join(map(str, source)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HELIX_HOME": str(self.home),
            "HELIX_RELEASE": str(self.release),
            "HELIX_PROMOTION": str(self.promotion),
            "HELIX_TRUST": str(self.trust),
            "HELIX_LOG": str(self.log),
            "HELIX_IMAGE_DIGEST": IMAGE,
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "OMP_NUM_THREADS": "1",
            **more,
        }


def make_tiny(folder: Path) -> Place:
    """The small model as an image would hold it, released and trusted."""
    place = Place(folder)
    shutil.copytree(TINY, place.home / "model", ignore=shutil.ignore_patterns("__pycache__"))
    (place.home / "artifacts").mkdir()
    (place.home / "artifacts" / "tiny.onnx").write_bytes(tiny_graph())
    publish(place, "tiny")
    return place


def publish(place: Place, model: str, **changes: object) -> None:
    """Write files.json, the signed release and the trust root for what lies in the place."""
    list_files(place)
    place.release.write_bytes(sign(records(place, model, **changes), place.key))
    promoter = trust(place.promoter, role="promoter")["keys"]
    root = trust(place.key)
    place.trust.write_bytes(json.dumps(root | {"keys": [*root["keys"], *promoter]}).encode())


def promote(place: Place, environment: str = "staging", generation: int = 1, **changes: Any) -> Promotion:
    """Mount a signed promotion of the place's release; `changes` spoil it: model, release, image, previous, key."""
    release = _released(place)
    parents = {"release": changes.get("release", release.digest)}
    if generation > 1:
        parents["previous"] = changes.get("previous", digest_bytes(b"the promotion before"))
    parameters = {"model": changes.get("model", "tiny"), "environment": environment, "generation": generation}
    made = Promotion(parents=parents, parameters=parameters)
    image = changes.get("image", IMAGE)
    place.promotion.write_bytes(
        sign_statement(PROMOTION, {"promotion": made.to_json()}, image, changes.get("key", place.promoter))
    )
    return made


def _released(place: Place) -> Release:
    bundle = json.loads(place.release.read_bytes())
    predicate = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicate"]
    found = from_json(predicate["release"])
    assert isinstance(found, Release)
    return found


def list_files(place: Place) -> None:
    """Write files.json."""
    entries = []
    for path in sorted(place.root.rglob("*")):
        name = path.relative_to(place.root).as_posix()
        if path.is_file() and name != "opt/helix/files.json":
            data = path.read_bytes()
            entries.append({"path": name, "digest": digest_bytes(data), "size": len(data), "mode": 0o644})
    entries.sort(key=lambda entry: str(entry["path"]))
    (place.home / "files.json").write_bytes(dumps({"version": 1, "files": entries}))


def records(place: Place, model: str, **changes: object) -> tuple[Release, dict[str, Record]]:
    """A complete chain for the files of the place; `changes` spoil it: guard_passed, image, builder, outputs."""
    digest = digest_bytes(b"source")
    common = {"model": model, "source": digest, "environment": digest}
    outputs = [
        Artifact(path.name, digest_bytes(path.read_bytes()), path.stat().st_size)
        for path in sorted((place.home / "artifacts").iterdir())
    ]
    guard = GuardVerdict(
        parameters={
            "model": model,
            "source": digest,
            "locks": [],
            "passed": changes.get("guard_passed", True),
            "findings": [],
        }
    )
    data = DataCommit(parameters={"model": model, "dvc_lock": digest, "files": []})
    weights = TrainedWeights(parents={"data": data.digest}, parameters={**common, "origin": "imported"})
    exported = ExportedModel(parents={"weights": weights.digest}, parameters=common)
    engine = CompiledEngine(
        parents={"exported": exported.digest},
        parameters=common,
        outputs=tuple(changes.get("outputs", outputs)),  # type: ignore[arg-type]
    )
    regression = RegressionVerdict(
        parents={"candidate": engine.digest, "weights": weights.digest, "data": data.digest},
        parameters={**common, "passed": True, "cases": []},
    )
    image = ImageBuild(
        parents={"model": engine.digest},
        parameters={**common, "image": IMAGE, "filesystem": digest_bytes((place.home / "files.json").read_bytes())},
    )
    chain: dict[str, Record] = {
        "image": image,
        "guard": guard,
        "data": data,
        "weights": weights,
        "exported": exported,
        "engine": engine,
        "regression": regression,
    }
    release = Release(
        parents={role: record.digest for role, record in chain.items()},
        parameters={"model": model, "commit": "0" * 40, "builder": BUILDER, "image": IMAGE},
    )
    for role in changes.get("without", ()):  # type: ignore[attr-defined]
        del chain[role]
    return release, {record.digest: record for record in chain.values()}


def sign(made: tuple[Release, Mapping[str, Record]], key: ec.EllipticCurvePrivateKey) -> bytes:
    """A Sigstore bundle of the release, as cosign writes it."""
    release, chain = made
    predicate = {"release": release.to_json(), "records": {d: record.to_json() for d, record in chain.items()}}
    return sign_statement(PREDICATE_TYPE, predicate, str(release.parameters["image"]), key)


def sign_statement(kind: str, predicate: Mapping[str, Any], image: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A Sigstore bundle of an in-toto statement about an image."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "registry/tiny", "digest": {"sha256": image.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": predicate,
    }
    payload = json.dumps(statement).encode()
    signature = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps({"mediaType": BUNDLE_TYPE, "verificationMaterial": {}, "dsseEnvelope": envelope}).encode()


def trust(key: ec.EllipticCurvePrivateKey, *, role: str = "releaser") -> dict[str, Any]:
    """A trust root that holds one key, from yesterday until tomorrow."""
    now = datetime.now(UTC).replace(microsecond=0)
    public = key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    entry = {
        "role": role,
        "key_id": key_id_of(public),
        "algorithm": "ecdsa-p256-sha256",
        "public_key": pem.decode(),
        "not_before": (now - timedelta(days=1)).isoformat().replace("+00:00", "Z"),
        "not_after": (now + timedelta(days=1)).isoformat().replace("+00:00", "Z"),
        "builder": BUILDER,
    }
    return {"version": 1, "keys": [entry]}


def verified(place: Place) -> VerifiedImage:
    """What a server on this place knows of itself."""
    return readiness.load(Settings.read(place.environment()), datetime.now(UTC))


class Memory:
    """A log in memory: the rules of the core need no disk (tests of the recorder and the endpoints use one)."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []

    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        first = len(self.predictions)
        self.predictions += predictions
        return [f"shard.{first + offset}" for offset in range(len(predictions))]


@dataclass
class Serving:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    place: Place
    http_port: int
    grpc_port: int
    output: Path
    scratch: Path  # where its temporary files are

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def computed(self) -> int:
        """Items that the small model has computed on this place."""
        return _computed(self.place).stat().st_size

    @property
    def inside(self) -> int:
        """Requests that were accepted and are not answered yet."""
        told = httpx.get(f"{self.url}/metrics", timeout=LONGEST_S).text
        return int(float(told.split("\nhelix_queue_depth ")[1].split()[0]))

    @contextlib.contextmanager
    def holding(self, after: int = 0) -> Iterator[None]:
        """The small model computes so many items more, and waits within the next one until the block ends."""
        _allowed(self.place).write_bytes(bytes(self.computed + after))
        try:
            yield
        finally:
            _allowed(self.place).unlink()

    def let(self, items: int) -> None:
        """In a block of `holding`: let so many items more be computed."""
        with _allowed(self.place).open("ab") as file:
            file.write(bytes(items))

    def held(self) -> bool:
        """In a block of `holding`: whether every item that may be computed is."""
        return self.computed == _allowed(self.place).stat().st_size

    def stop(self, timeout: float = LONGEST_S) -> int:
        """TERM, then wait; the exit status."""
        self.process.terminate()
        return self.process.wait(timeout)


def _computed(place: Place) -> Path:
    return place.folder / "computed"


def _allowed(place: Place) -> Path:
    return place.folder / "allowed"


@contextlib.contextmanager
def serving(place: Place, *command: str, **environment: str) -> Iterator[Serving]:
    """Run the server on a place until the block ends, once its HTTP endpoint answers (ready or not)."""
    http_port, grpc_port = free_port(), free_port()
    output = place.folder / f"server-{http_port}.txt"
    _computed(place).touch()
    scratch = place.folder / f"scratch-{http_port}"  # what a server that is killed leaves goes with the test's folder
    scratch.mkdir()
    env = place.environment(
        TMPDIR=str(scratch),
        HELIX_HTTP_PORT=str(http_port),
        HELIX_GRPC_PORT=str(grpc_port),
        TINY_COMPUTED=str(_computed(place)),
        TINY_ALLOWED=str(_allowed(place)),
        **environment,
    )
    arguments = [part.format(port=http_port) for part in command] or [sys.executable, "-m", "helixserve", "serve"]
    with output.open("wb") as file:
        process = subprocess.Popen(arguments, env=env, stdout=file, stderr=subprocess.STDOUT, cwd=place.folder)
        made = Serving(process, place, http_port, grpc_port, output, scratch)
        try:
            wait_until_live(made)
            yield made
        finally:
            try:
                made.stop()
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_live(server: Serving) -> None:
    """Until the HTTP endpoint answers. Raises AssertionError with the server's output when it ended or never does."""

    def live() -> bool:
        assert server.process.poll() is None, server.output.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{server.url}/v2/health/live", timeout=LONGEST_S).status_code == httpx.codes.OK
        return False

    try:
        until(live, "an answer at the HTTP endpoint")
    except AssertionError as error:
        raise AssertionError(server.output.read_text()) from error
