"""Ours beside the upstream wheel, on real structures: the same inputs, log-probabilities and sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pytest

from helixserve.sampling import permutation, uniforms
from proteinmpnn_model.decode import Choice, Decoder, allowed, decoding_order
from proteinmpnn_model.featurize import Backbone, designed_mask, featurize
from proteinmpnn_model.structure import Structure, read_structure, sniff_format

pytest.importorskip("torch", reason="needs torch and the upstream package; run: make test-torch")
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


def test_upstream_feeds_its_network_the_same_arrays(case: Case, upstream: Callable) -> None:
    theirs = upstream(case.pdb, case.structure)
    assert np.array_equal(theirs.array("X"), case.backbone.coordinates)
    assert np.array_equal(theirs.array("mask"), case.backbone.mask)
    assert np.array_equal(theirs.array("S"), case.backbone.native)
    # Only offsets within a chain reach the network.
    for chain in set(case.backbone.chain.tolist()):
        of_chain = case.backbone.chain == chain
        assert len(set(theirs.array("chain_encoding")[of_chain].tolist())) == 1
        assert np.array_equal(np.diff(theirs.array("residue_idx")[of_chain]), np.diff(case.backbone.residue_index[of_chain]))


def test_log_probabilities_are_those_of_upstream(case: Case, upstream: Callable, decoder: Decoder) -> None:
    order = permutation(0, len(case.backbone))
    ours = decoder.decode(case.backbone, decoder.encode(case.backbone), case.backbone.native, order)
    theirs = upstream(case.pdb, case.structure).log_probabilities(case.backbone.native, order)
    whole = case.backbone.mask > 0
    worst = np.abs(ours.log_probabilities_la - theirs)[whole].max()
    assert worst <= ALLOWED
    assert not ours.log_probabilities_la[~whole].any()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_same_order_and_random_numbers_give_the_sequence_of_upstream(
    case: Case, temperature: float, upstream: Callable, decoder: Decoder
) -> None:
    free = case.backbone.mask > 0
    _assert_same_sequence(case, free, temperature, upstream, decoder)


@pytest.mark.parametrize("name", ["pdb1ubi.pdb", "pdb3hsy.pdb"])
def test_fixed_positions_and_chains_give_the_sequence_of_upstream(
    name: str, structures: Path, tmp_path: Path, upstream: Callable, decoder: Decoder
) -> None:
    case = _case(structures / name, tmp_path)
    first = case.structure.chains[0]
    fixed = [f"{first.name}:{residue.number}" for residue in first.residues if residue.present][5:40:3]
    free = designed_mask(case.structure, case.backbone, [first.name], fixed)
    assert free.sum() == case.backbone.mask[: len(first.residues)].sum() - len(fixed)
    sampled = _assert_same_sequence(case, free, 0.1, upstream, decoder)
    assert np.array_equal(sampled[~free], case.backbone.native[~free])


def _assert_same_sequence(
    case: Case, free: np.ndarray, temperature: float, upstream: Callable, decoder: Decoder
) -> np.ndarray:
    size = len(case.backbone)
    order, drawn = decoding_order(permutation(7, size), free), uniforms(7, size)
    choice = Choice(free, drawn, temperature, allowed("X"))
    ours = decoder.decode(case.backbone, decoder.encode(case.backbone), case.backbone.native, order, choice)
    theirs = upstream(case.pdb, case.structure).sample(order, drawn, free, temperature)
    assert np.array_equal(ours.residues_l, theirs)
    return ours.residues_l


def test_other_weights_would_be_noticed(
    structures: Path, data_folder: Path, weights: Path, tmp_path: Path, upstream: Callable
) -> None:
    """The parity check bites: one weight changed by a hundredth is beyond the tolerance."""
    from safetensors.numpy import load_file, save_file

    from helixserve.runners import open_runner
    from proteinmpnn_model.export import GRAPHS

    tensors = load_file(weights / "weights.safetensors")
    tensors["decoder_layers.0.W3.bias"] = tensors["decoder_layers.0.W3.bias"] + np.float32(0.01)
    save_file(tensors, tmp_path / "weights.safetensors")
    changed = load_file(tmp_path / "weights.safetensors")
    decoder = Decoder(open_runner("onnxruntime", {name: write(changed) for name, write in GRAPHS.items()}))
    case = _case(structures / "pdb1ubi.pdb", tmp_path)
    order = permutation(0, len(case.backbone))
    ours = decoder.decode(case.backbone, decoder.encode(case.backbone), case.backbone.native, order)
    theirs = upstream(case.pdb, case.structure).log_probabilities(case.backbone.native, order)
    assert np.abs(ours.log_probabilities_la - theirs).max() > ALLOWED
