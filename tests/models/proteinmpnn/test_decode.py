"""Decoding: what a design may depend on, and what it may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from helixserve.model.sampling import permutation, uniforms
from helixserve.runners import Runner, open_runner
from proteinmpnn_model.decode import Choice, Decoded, Decoder, allowed, choose_residue, decoding_order
from proteinmpnn_model.featurize import Backbone, featurize
from proteinmpnn_model.structures.structure import ALPHABET, Structure, read_structure, sniff_format


@pytest.fixture(scope="module")
def backbone(structures: Path) -> Backbone:
    return _backbone(structures / "pdb1ubi.pdb")


def _structure(path: Path) -> Structure:
    text = path.read_text()
    return read_structure(text, sniff_format(text), residue_limit=2000)


def _backbone(path: Path) -> Backbone:
    return featurize(_structure(path))


def _score(decoder: Decoder, backbone: Backbone, order: np.ndarray) -> np.ndarray:
    return decoder.decode(backbone, decoder.encode(backbone), backbone.native, order).log_probabilities_la


def _design(decoder: Decoder, backbone: Backbone, seed: int = 0, temperature: float = 1.0) -> Decoded:
    size = len(backbone)
    choice = Choice(backbone.mask > 0, uniforms(seed, size), temperature, allowed("X"))
    return decoder.decode(backbone, decoder.encode(backbone), backbone.native, permutation(seed, size), choice)


def test_probabilities_add_up_to_one(decoder: Decoder, backbone: Backbone) -> None:
    total = np.exp(_score(decoder, backbone, permutation(0, len(backbone))).astype(np.float64)).sum(1)
    assert np.allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["pdb1ubi.pdb", "pdb1ejg.pdb", "4ZHL.cif"])
def test_turning_and_moving_the_structure_changes_nothing(decoder: Decoder, structures: Path, name: str) -> None:
    backbone = _backbone(structures / name)
    rotation, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    moved = (backbone.coordinates.astype(np.float64) @ rotation.T + [30.0, -20.0, 10.0]).astype(np.float32)
    order = permutation(0, len(backbone))
    difference = np.abs(_score(decoder, replace(backbone, coordinates=moved), order) - _score(decoder, backbone, order))
    assert difference.max() < 1e-3  # float32 coordinates are rounded anew


def test_a_mirror_image_is_another_structure(decoder: Decoder, backbone: Backbone) -> None:
    """The invariance test bites: handedness does change the answer."""
    order = permutation(0, len(backbone))
    mirrored = replace(backbone, coordinates=backbone.coordinates * np.array([1, 1, -1], np.float32))
    assert np.abs(_score(decoder, mirrored, order) - _score(decoder, backbone, order)).max() > 0.1


def test_the_order_of_chains_changes_nothing_but_rounding(decoder: Decoder, structures: Path) -> None:
    structure = _structure(structures / "2BEG.pdb")
    turned = Structure(tuple(reversed(structure.chains)))
    size = len(structure.chains[0].residues)
    place = np.arange(len(structure)).reshape(-1, size)[::-1].reshape(-1)  # of each residue, once turned
    order = permutation(0, len(structure))
    ours = _score(decoder, featurize(structure), order)
    theirs = _score(decoder, featurize(turned), place[order])
    assert np.abs(ours - theirs[place]).max() < 1e-4


def test_a_residue_sees_only_those_decoded_before_it(decoder: Decoder, backbone: Backbone) -> None:
    order = permutation(3, len(backbone))
    changed = replace(backbone, native=backbone.native.copy())
    changed.native[order[40]] = (backbone.native[order[40]] + 1) % 20
    ours, theirs = _score(decoder, backbone, order), _score(decoder, changed, order)
    assert np.array_equal(ours[order[:41]], theirs[order[:41]])
    assert not np.array_equal(ours[order[41:]], theirs[order[41:]])


def test_the_same_call_gives_the_same_bits_from_graphs_opened_anew(
    artifacts: Path, decoder: Decoder, backbone: Backbone
) -> None:
    graphs = {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}
    again = Decoder(open_runner("onnxruntime", graphs))
    _design(again, backbone, seed=9)
    ours, theirs = _design(decoder, backbone), _design(again, backbone)
    assert ours.residues_l.tobytes() == theirs.residues_l.tobytes()
    assert ours.log_probabilities_la.tobytes() == theirs.log_probabilities_la.tobytes()


def test_scoring_a_design_gives_its_own_bits(decoder: Decoder, backbone: Backbone) -> None:
    """Choosing and being told are one computation."""
    designed = _design(decoder, backbone)
    told = replace(backbone, native=designed.residues_l)
    scored = _score(decoder, told, permutation(0, len(backbone)))
    assert scored.tobytes() == designed.log_probabilities_la.tobytes()


class Counting(Runner):
    """Counts the calls of each graph, and their batch."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.calls: list[tuple[str, int]] = []

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append((graph, len(inputs["nodes"]) if "nodes" in inputs else 0))
        return self.runner.run(graph, inputs)


def test_missing_residues_cost_no_step_and_every_step_has_a_batch_of_one(artifacts: Path, structures: Path) -> None:
    graphs = {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}
    runner = Counting(open_runner("onnxruntime", graphs))
    backbone = _backbone(structures / "2n0n_M1.pdb")
    _design(Decoder(runner), backbone)
    steps = [batch for graph, batch in runner.calls if graph == "decoder_step"]
    assert steps == [1] * int(backbone.mask.sum())
    assert [graph for graph, _ in runner.calls[:2]] == ["residue_tables", "encoder"]
    assert len(backbone) == 10


@given(st.permutations(range(12)), st.lists(st.booleans(), min_size=12, max_size=12))
def test_kept_residues_come_first_and_both_parts_keep_their_order(order: list[int], free: list[bool]) -> None:
    found = decoding_order(np.array(order), np.array(free)).tolist()
    assert found == [place for place in order if not free[place]] + [place for place in order if free[place]]


weights = st.lists(st.floats(-50.0, 0.0), min_size=21, max_size=21)


@given(
    weights,
    st.floats(0.0, 1.0, exclude_max=True),
    st.floats(1e-4, 10.0),
    st.sets(st.sampled_from(ALPHABET), max_size=20),
)
def test_only_what_is_allowed_is_chosen(
    values: list[float], uniform: float, temperature: float, omit: set[str]
) -> None:
    choice = Choice(np.array([True]), np.array([uniform]), temperature, allowed(omit))
    assert ALPHABET[choose_residue(np.array(values), choice, 0)] not in omit


@given(weights, st.floats(0.0, 1.0, exclude_max=True))
def test_a_low_temperature_takes_the_likeliest(values: list[float], uniform: float) -> None:
    values[7] = 0.5
    choice = Choice(np.array([True]), np.array([uniform]), 1e-4, allowed(""))
    assert choose_residue(np.array(values), choice, 0) == 7


def test_choices_follow_the_probabilities() -> None:
    probabilities = np.full(21, 0.01)
    probabilities[[2, 5]] = 0.5, 0.31
    drawn = uniforms(1, 20000)
    choice = Choice(np.ones(20000, bool), drawn, 1.0, allowed(""))
    counts = np.bincount([choose_residue(np.log(probabilities), choice, i) for i in range(20000)], minlength=21)
    assert np.abs(counts / 20000 - probabilities).max() < 0.015
