"""The reference decoder chooses as the kernels do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helixserve.model.sampling import permutation, uniforms
from proteinmpnn_model.decode import Choice, Decoded, Decoder, allowed
from proteinmpnn_model.featurize import Backbone, featurize
from proteinmpnn_model.structures.structure import read_structure, sniff_format

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model.reference import ReferenceDecoder  # after the check for torch
from tests.models.proteinmpnn import tolerances

pytestmark = pytest.mark.torch


def read(path: Path) -> Backbone:
    text = path.read_text()
    return featurize(read_structure(text, sniff_format(text), residue_limit=2000))


def draw(decoder: Decoder | ReferenceDecoder, backbone: Backbone) -> Decoded:
    choice = Choice(backbone.mask > 0, uniforms(11, len(backbone)), 1.0, allowed("X"))
    order = permutation(11, len(backbone))
    return decoder.decode(backbone, decoder.encode(backbone), backbone.native, order, choice)


@pytest.mark.parametrize("name", ["pdb1ejg.pdb", "2n0n_M1.pdb", "3JQH.cif"])
def test_kernels_and_reference_draw_the_same_sequence(
    name: str, served: Decoder, weights: Path, structures: Path
) -> None:
    backbone = read(structures / name)
    ours, reference = draw(served, backbone), draw(ReferenceDecoder(weights, double=True), backbone)
    assert np.array_equal(ours.residues_l, reference.residues_l)
    difference = np.abs(ours.log_probabilities_la - reference.log_probabilities_la).max()
    assert difference <= tolerances.NATIVE / tolerances.MARGIN
    assert reference.log_probabilities_la.dtype == np.float64


def test_in_float32_it_is_only_near(weights: Path, structures: Path) -> None:
    """How near depends on the processor; so nothing is judged by it, and here only its type is."""
    backbone = read(structures / "2n0n_M1.pdb")
    assert draw(ReferenceDecoder(weights, double=False), backbone).log_probabilities_la.dtype == np.float32
