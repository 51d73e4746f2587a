"""The reference decoder chooses as the graphs do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helixserve.sampling import permutation, uniforms
from proteinmpnn_model.decode import Choice, Decoder, allowed
from proteinmpnn_model.featurize import featurize
from proteinmpnn_model.structure import read_structure, sniff_format

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model.reference import ReferenceDecoder  # after the check for torch

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", ["pdb1ejg.pdb", "2n0n_M1.pdb", "3JQH.cif"])
def test_graphs_and_reference_draw_the_same_sequence(
    name: str, double: bool, decoder: Decoder, weights: Path, structures: Path
) -> None:
    text = (structures / name).read_text()
    backbone = featurize(read_structure(text, sniff_format(text), residue_limit=2000))
    order = permutation(11, len(backbone))
    choice = Choice(backbone.mask > 0, uniforms(11, len(backbone)), 1.0, allowed("X"))
    found = [
        one.decode(backbone, one.encode(backbone), backbone.native, order, choice)
        for one in (decoder, ReferenceDecoder(weights, double=double))
    ]
    assert np.array_equal(found[0].residues_l, found[1].residues_l)
    assert np.abs(found[0].log_probabilities_la - found[1].log_probabilities_la).max() <= 1e-4
    assert found[1].log_probabilities_la.dtype == (np.float64 if double else np.float32)
