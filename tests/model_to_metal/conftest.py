"""Real tools for the tests of signing: built cosign and olareg, a registry on a free port, a small image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.paths import State
from helix_lineage.records.chain import (
    Artifact,
    CompiledEngine,
    DataCommit,
    ExportedModel,
    GuardVerdict,
    ImageBuild,
    Record,
    RegressionVerdict,
    Release,
    TrainedWeights,
)
from model_to_metal.host import tools
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import keys

ROOT = Path(__file__).resolve().parents[2]
OCI = "application/vnd.oci.image."


@pytest.fixture(scope="session")
def checkout_state() -> State:
    """The checkout's own state, whose built tools the tests use."""
    return State(Path(os.environ.get("HELIX_STATE", ROOT / ".helix")))


@pytest.fixture(scope="session")
def built_tools(checkout_state: State) -> Path:
    """The folder with cosign and olareg; built on the first run ever."""
    for name in tools.NEEDED:
        tools.ensure(name, checkout_state)
    return checkout_state.tools


@pytest.fixture
def state(tmp_path: Path, built_tools: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """An empty state, with the checkout's tools and development keys of its own."""
    monkeypatch.delenv("HELIX_REGISTRY", raising=False)
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
    root = tmp_path / "state"
    root.mkdir()
    (root / "tools").symlink_to(built_tools)
    return State(root)


@pytest.fixture
def signing(state: State) -> State:
    """A state with development keys."""
    keys.make(state)
    return state


@pytest.fixture
def client(state: State) -> Iterator[Client]:
    """A client of an empty registry that runs on a free port."""
    with artifacts.serving(state, port=0) as address, Client(address) as found:
        yield found


def write_layout(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write an OCI layout with one image of one layer; gives the manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = digest_bytes(data)
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": OCI + kind, "digest": digest, "size": len(data)}

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    layer = blob("layer.v1.tar+gzip", gzip.compress(raw.getvalue(), mtime=0))
    diff = "sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [diff]}
    config = blob("config.v1+json", dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}))
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": config, "layers": [layer]}
    described = blob("manifest.v1+json", dumps(manifest))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return str(described["digest"])


@pytest.fixture
def push(client: Client, tmp_path: Path) -> Callable[[str], Image]:
    """Push a small image with that text in it to `helix/tiny`."""

    def pushed(content: str) -> Image:
        layout = tmp_path / f"layout-{content}"
        digest = write_layout(layout, {"opt/helix/model/model.toml": content.encode()})
        return artifacts.push_layout(client, "helix/tiny", layout, digest)

    return pushed


@dataclass(frozen=True)
class Chain:
    """A whole chain of records about one image, with the files that they name."""

    release: Release
    records: tuple[Record, ...]
    evidence: Mapping[str, bytes]


def blob(text: str) -> tuple[str, bytes]:
    data = text.encode()
    return digest_bytes(data), data


def make_chain(image: str, *, guard_passes: bool = True, regression_passes: bool = True) -> Chain:
    """The records of a release of `tiny` with that image digest; small, but whole."""
    wheel, wheels = blob(f"numpy==2.0.0 --hash=sha256:{'1' * 64}  # numpy-2.0.0-py3-none-any.whl\n")
    deb, debs = blob(f"pool/main/z/zlib/zlib1g_1.2.13+dfsg-1_amd64.deb sha256:{'2' * 64}\n")
    dvc, dvc_lock = blob("schema: '2.0'\n")
    locks = {
        "models/tiny/environment/serve.lock": wheel,
        "platform/nix/debs.lock": deb,
        "models/tiny/dvc.lock": dvc,
    }
    environment = dumps({"entries": [], "files": {path: locks[path] for path in sorted(locks)[1:]}})
    source = dumps({"entries": [], "files": {"models/tiny/model.toml": digest_bytes(b"model")}})
    common = {"model": "tiny", "source": digest_bytes(source), "environment": digest_bytes(environment)}
    finding = {"rule": "pickle", "file": "a.py", "line": 1, "message": "no pickle", "fix": "use safetensors"}
    guard = GuardVerdict(
        parameters={
            "model": "tiny",
            "source": digest_bytes(source),
            "locks": locks,
            "passed": guard_passes,
            "rules": ["contract", "pickle"],
            "findings": [] if guard_passes else [finding],
        }
    )
    file = Artifact("weights.pt", digest_bytes(b"weights"), 7)
    rows = [{"path": "weights.pt", "md5": hashlib.md5(b"weights", usedforsecurity=False).hexdigest(), "size": 7}]
    data = DataCommit(parameters={"model": "tiny", "dvc_lock": dvc, "files": rows}, outputs=(file,))
    weights = TrainedWeights(parents={"data": data.digest}, parameters={**common, "origin": "imported"})
    exported = ExportedModel(parents={"weights": weights.digest}, parameters=common, target="cpu")
    engine = CompiledEngine(parents={"exported": exported.digest}, parameters=common, target="cpu")
    case = {"case": "1ubi", "metric": "max deviation", "value": 1e-5, "allowed": 1e-4, "passed": regression_passes}
    regression = RegressionVerdict(
        parents={"candidate": engine.digest, "weights": weights.digest, "data": data.digest},
        parameters={**common, "passed": regression_passes, "cases": [case]},
    )
    built = ImageBuild(
        parents={"model": engine.digest},
        parameters={**common, "image": image, "filesystem": digest_bytes(b"files")},
        target="cpu",
    )
    roles = {
        "guard": guard, "data": data, "weights": weights, "exported": exported, "engine": engine,
        "regression": regression,
    }  # fmt: skip
    release = Release(
        parents={**{role: record.digest for role, record in roles.items()}, "image": built.digest},
        parameters={"model": "tiny", "commit": "c" * 40, "builder": "laptop", "image": image},
        target="cpu",
    )
    evidence = {digest_bytes(data): data for data in (wheels, debs, dvc_lock, environment, source)}
    return Chain(release, (*roles.values(), built), evidence)


@pytest.fixture
def chain_of() -> Callable[..., Chain]:
    """Makes chains; see `make_chain`."""
    return make_chain


@pytest.fixture(scope="session")
def promotable(tmp_path_factory: pytest.TempPathFactory, built_tools: Path) -> Iterator[Any]:
    """A world to promote in (`promotion_world.World`); tests take copies of its repository."""
    from tests.model_to_metal import promotion_world  # noqa: PLC0415  it uses what is above

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HELIX_REGISTRY", "COSIGN_PASSWORD", "SOURCE_DATE_EPOCH"):
            patch.delenv(name, raising=False)
        with promotion_world.made(tmp_path_factory.mktemp("world"), built_tools) as world:
            yield world
