"""Real data and real weights.

Tests that take `artifacts` need the exported graphs, with the kernels beside them. They are made here
where torch is, in the build environment; elsewhere HELIX_PROTEINMPNN_ARTIFACTS may name a folder that
holds them, for instance the one that `nix build .#proteinmpnn-engine` gives.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.formats.typed import Tensor
from helix_lineage.paths import State
from helixserve.model import tensors as typed
from helixserve.model.contract import Contract
from helixserve.runners import open_runner
from proteinmpnn_model import data
from proteinmpnn_model.decode import Decoder
from proteinmpnn_model.errors import DataError
from proteinmpnn_model.model import ProteinMPNN
from proteinmpnn_model.native.runner import NativeRunner
from tests.models.proteinmpnn import kernels

HERE = Path(__file__).resolve().parent
MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"
HAVE_TORCH = importlib.util.find_spec("torch") is not None
TORCH_COMMAND = "make test-torch"
ARTIFACTS = "HELIX_PROTEINMPNN_ARTIFACTS"
ENGINE = ("x86-64-v3", "x86-64-v4")
"""The kernels that a release holds; compiled for a wider processor than this one, too."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs graphs that only torch can make here belongs to `make test-torch`."""
    # The hook of a nested conftest sees the tests of the whole run, and fixtures elsewhere have these names, too.
    for item in (item for item in items if item.path.is_relative_to(HERE)):
        fixtures = getattr(item, "fixturenames", ())
        if "weights" in fixtures or ("artifacts" in fixtures and ARTIFACTS not in os.environ):
            item.add_marker(pytest.mark.torch)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's data: as DVC left it, or extracted again from the locked archives."""
    if (MODEL / "data" / "structures").is_dir() and (MODEL / "data" / "weights").is_dir():
        return MODEL / "data"
    folder = tmp_path_factory.mktemp("data")
    try:
        for name in data.FILES:
            data.extract(name, State.find(MODEL).downloads / "upstream", folder / name)
    except DataError as error:
        pytest.skip(f"the data files are absent: {error}")
    return folder


@pytest.fixture(scope="session")
def structures(data_folder: Path) -> Path:
    return data_folder / "structures"


@pytest.fixture(scope="session")
def weights(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stage import gives."""
    if not HAVE_TORCH:
        pytest.skip(f"needs torch; run: {TORCH_COMMAND}")
    from proteinmpnn_model.weights import import_weights  # noqa: PLC0415  # loads torch

    folder = tmp_path_factory.mktemp("weights")
    import_weights(data_folder, folder)
    return folder


@pytest.fixture(scope="session")
def artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stage compile gives."""
    if named := os.environ.get(ARTIFACTS):
        return Path(named)
    if not HAVE_TORCH:
        pytest.skip(f"needs the exported graphs; run: {TORCH_COMMAND}, or set {ARTIFACTS}")
    from proteinmpnn_model.export import export  # noqa: PLC0415  # loads torch

    folder = tmp_path_factory.mktemp("artifacts")
    export(request.getfixturevalue("weights"), folder)
    kernels.compiled(folder, ENGINE)
    return folder


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract.load(MODEL / "model.toml")


@pytest.fixture(scope="session")
def model(artifacts: Path, contract: Contract) -> ProteinMPNN:
    return ProteinMPNN.load({name: (artifacts / name).read_bytes() for name in contract.artifacts}, contract)


@pytest.fixture(scope="session")
def decoder(artifacts: Path) -> Decoder:
    """The graphs in ONNX Runtime, which chooses its code by the processor."""
    return Decoder(open_runner("onnxruntime", {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}))


@pytest.fixture(scope="session")
def served(artifacts: Path) -> Decoder:
    """What a release is served by: the native kernels, whose bits are the same on every processor."""
    graphs = {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}
    return Decoder(NativeRunner(graphs, {path.name: path.read_bytes() for path in artifacts.glob("*.so")}))


Ask = Callable[..., list[dict[str, Tensor]]]


@pytest.fixture(scope="session")
def ask(model: ProteinMPNN) -> Ask:
    """Resolve and predict: `ask(task, structure=…, num_sequences=…)` gives name → tensor for each item."""

    def call(task: str, items: Sequence[int] | None = None, **fields: Any) -> list[dict[str, Tensor]]:
        inputs = model.contract.task(task).inputs
        given = [typed.from_value(name, inputs[name].datatype, value) for name, value in fields.items()]
        resolved = model.resolve(task, given, lambda: 1)
        wanted = range(model.count(resolved)) if items is None else items
        return [{tensor.name: tensor for tensor in item} for item in model.predict(resolved, wanted)]

    return call
