"""Real data, real weights, and the upstream package behind one small class.

Tests that take `artifacts` need the exported graphs. They are made here where torch is, in the
build environment; elsewhere HELIX_PROTEINMPNN_ARTIFACTS may name a folder that holds them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helix_lineage.paths import State
from helix_lineage.typed import Tensor
from helixserve import tensors as typed
from helixserve.contract import Contract
from helixserve.runners import open_runner
from proteinmpnn_model import data
from proteinmpnn_model.decode import Decoder
from proteinmpnn_model.errors import DataError
from proteinmpnn_model.featurize import Backbone
from proteinmpnn_model.model import ProteinMPNN
from proteinmpnn_model.structure import ALPHABET, Structure

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"
HAVE_TORCH = importlib.util.find_spec("torch") is not None
TORCH_COMMAND = "make test-torch"
ARTIFACTS = "HELIX_PROTEINMPNN_ARTIFACTS"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs graphs that only torch can make here belongs to `make test-torch`."""
    for item in items:
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
    from proteinmpnn_model.weights import import_weights

    folder = tmp_path_factory.mktemp("weights")
    import_weights(data_folder, folder)
    return folder


@pytest.fixture(scope="session")
def artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stage export gives."""
    if named := os.environ.get(ARTIFACTS):
        return Path(named)
    if not HAVE_TORCH:
        pytest.skip(f"needs the exported graphs; run: {TORCH_COMMAND}, or set {ARTIFACTS}")
    from proteinmpnn_model.export import export

    folder = tmp_path_factory.mktemp("artifacts")
    export(request.getfixturevalue("weights"), folder)
    return folder


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract.load(MODEL / "model.toml")


@pytest.fixture(scope="session")
def model(artifacts: Path, contract: Contract) -> ProteinMPNN:
    return ProteinMPNN.load({name: (artifacts / name).read_bytes() for name in contract.artifacts}, contract)


@pytest.fixture(scope="session")
def decoder(artifacts: Path) -> Decoder:
    return Decoder(open_runner("onnxruntime", {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}))


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


@dataclass(frozen=True)
class Upstream:
    """The upstream package on one PDB file: its own parser, featurizer, network and sampler.

    Upstream sorts chains by name; `position` maps our positions (file order) to its.
    """

    module: Any
    network: Any
    inputs: Mapping[str, Any]
    position: np.ndarray

    @classmethod
    def open(cls, weights: Path, pdb: Path, structure: Structure) -> Upstream:
        import proteinmpnn.protein_mpnn_utils as module
        import torch

        checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
        network = module.ProteinMPNN(
            num_letters=21, node_features=128, edge_features=128, hidden_dim=128, augment_eps=0.0, k_neighbors=48
        )
        network.load_state_dict(checkpoint["model_state_dict"])
        parsed = module.parse_PDB(str(pdb))
        featurized = module.tied_featurize(parsed, "cpu", None)
        names = "X S mask lengths chain_M chain_encoding letters visible masked masked_lengths chain_M_pos omit residue_idx"
        inputs = dict(zip(names.split(), featurized, strict=False))
        inputs["bias_by_res"] = featurized[-2]
        starts, start = {}, 0
        for chain in sorted(structure.chains, key=lambda chain: chain.name):
            starts[chain.name] = start
            start += len(chain.residues)
        position = [starts[chain.name] + index for chain in structure.chains for index in range(len(chain.residues))]
        return cls(module, network.eval(), inputs, np.array(position))

    def array(self, name: str) -> np.ndarray:
        """An input of the network in our order of chains."""
        return np.asarray(self.inputs[name][0])[self.position]

    def log_probabilities(self, residues: np.ndarray, order: np.ndarray) -> np.ndarray:
        """[l, a] of upstream's own forward pass, in our order of chains."""
        import torch

        theirs = torch.zeros_like(self.inputs["S"])
        theirs[0, self.position] = torch.from_numpy(residues)
        with torch.no_grad():
            found = self.network(
                self.inputs["X"], theirs, self.inputs["mask"], self.inputs["chain_M"], self.inputs["residue_idx"],
                self.inputs["chain_encoding"], torch.zeros(1, len(residues)), use_input_decoding_order=True,
                decoding_order=torch.from_numpy(self.position[order])[None],
            )  # fmt: skip
        return found[0].numpy()[self.position]

    def sample(self, order: np.ndarray, uniforms: np.ndarray, free: np.ndarray, temperature: float) -> np.ndarray:
        """[l] what upstream's sampler draws in that order with those random numbers, in our order of chains."""
        import torch

        chain_m_pos = torch.zeros_like(self.inputs["chain_M_pos"])
        chain_m_pos[0, self.position] = torch.from_numpy(free.astype(np.float32))
        # Upstream sorts by |randn|: rising values in our order make it decode in that order.
        randn = torch.zeros(1, len(order))
        randn[0, self.position[order]] = torch.arange(1, len(order) + 1, dtype=torch.float32)
        whole = self.array("mask") > 0
        drawn = [float(uniforms[place]) for place in order if whole[place]]
        with torch.no_grad(), _inverse_cdf(drawn):
            found = self.network.sample(
                self.inputs["X"], randn, self.inputs["S"], self.inputs["chain_M"], self.inputs["chain_encoding"],
                self.inputs["residue_idx"], mask=self.inputs["mask"], temperature=temperature,
                omit_AAs_np=np.array([letter == "X" for letter in ALPHABET], dtype=np.float32),
                bias_AAs_np=np.zeros(21), chain_M_pos=chain_m_pos, bias_by_res=self.inputs["bias_by_res"],
                pssm_log_odds_flag=False, pssm_bias_flag=False,
            )  # fmt: skip
        assert found["decoding_order"][0].tolist() == self.position[order].tolist()
        return found["S"][0].numpy()[self.position]


@contextmanager
def _inverse_cdf(uniforms: Sequence[float]) -> Iterator[None]:
    """Give torch.multinomial, one call after another, these random numbers."""
    import torch

    remaining = iter(uniforms)

    def draw(probabilities: Any, count: int) -> Any:
        assert count == 1
        cumulative = torch.cumsum(probabilities.double(), -1)
        return (cumulative <= next(remaining) * cumulative[:, -1:]).sum(-1, keepdim=True).clamp(max=20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", draw)
        yield


@pytest.fixture(scope="session")
def upstream(data_folder: Path) -> Callable[[Path, Structure], Upstream]:
    """Open upstream on a PDB file that has this structure."""
    pytest.importorskip("proteinmpnn", reason=f"needs the upstream package; run: {TORCH_COMMAND}")
    return lambda pdb, structure: Upstream.open(data_folder / "weights" / "v_48_020.pt", pdb, structure)


def arrays(backbone: Backbone) -> dict[str, np.ndarray]:
    """The encoder's inputs by name."""
    return {name: getattr(backbone, name) for name in ("coordinates", "mask", "residue_index", "chain")}
