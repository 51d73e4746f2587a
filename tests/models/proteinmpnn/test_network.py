"""The reference network: its laws, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model.featurize import featurize  # noqa: E402  # after the check for torch
from proteinmpnn_model.network import CA, BackboneTensors, ProteinMPNN, nearest, with_cb  # noqa: E402
from proteinmpnn_model.structures.structure import read_structure, sniff_format  # noqa: E402
from proteinmpnn_model.weights import load_network  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def network(weights: Path) -> ProteinMPNN:
    return load_network(weights).double()


@pytest.fixture(params=["pdb1ubi.pdb", "1A8O.cif", "pdb1ejg.pdb"])
def backbone(request: pytest.FixtureRequest, structures: Path) -> BackboneTensors:
    text = (structures / request.param).read_text()
    found = featurize(read_structure(text, sniff_format(text), residue_limit=2000))
    return BackboneTensors(
        torch.from_numpy(found.coordinates).double(),
        torch.from_numpy(found.mask).double(),
        torch.from_numpy(found.residue_index),
        torch.from_numpy(found.chain),
    )


def _order(size: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(size))


def test_turning_and_moving_changes_nothing(network: ProteinMPNN, backbone: BackboneTensors) -> None:
    rotation = torch.linalg.qr(torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3))))[0]
    rotation = rotation * torch.sign(torch.linalg.det(rotation))
    moved = backbone._replace(coordinates_ld3=backbone.coordinates_ld3 @ rotation.T + torch.tensor([5.0, -60.0, 9.0]))
    size = len(backbone.mask_l)
    residues, order = torch.arange(size) % 20, _order(size)
    assert torch.allclose(network(moved, residues, order), network(backbone, residues, order), rtol=0, atol=1e-9)


def test_renaming_the_residues_renames_the_answer(network: ProteinMPNN, backbone: BackboneTensors) -> None:
    size = len(backbone.mask_l)
    residues, order, place = torch.arange(size) % 20, _order(size), _order(size, 5)
    where = torch.argsort(place)
    renamed = BackboneTensors(*(part[place] for part in backbone))
    found = network(renamed, residues[place], where[order])
    assert torch.allclose(found[where], network(backbone, residues, order), rtol=0, atol=1e-9)


def test_a_residue_sees_only_those_decoded_before_it(network: ProteinMPNN, backbone: BackboneTensors) -> None:
    size = len(backbone.mask_l)
    residues, order = torch.arange(size) % 20, _order(size)
    changed = residues.clone()
    changed[order[20]] = (changed[order[20]] + 1) % 20
    ours, theirs = network(backbone, residues, order), network(backbone, changed, order)
    assert torch.equal(ours[order[:21]], theirs[order[:21]])
    assert not torch.equal(ours[order[21:]], theirs[order[21:]])


def test_of_equally_far_residues_the_first_are_neighbours() -> None:
    ca = torch.zeros(60, 3, dtype=torch.float64)
    ca[10] = torch.tensor([1.0, 0.0, 0.0])
    distances, neighbours = nearest(ca, torch.ones(60, dtype=torch.float64))
    assert neighbours[0].tolist() == [place for place in range(49) if place != 10]
    assert neighbours[10].tolist() == [10, *(place for place in range(48) if place != 10)]
    assert distances.shape == (60, 48)


def test_residues_without_a_backbone_are_neighbours_only_where_too_few_others_are() -> None:
    ca = torch.arange(60, dtype=torch.float64)[:, None] * torch.tensor([3.8, 0.0, 0.0], dtype=torch.float64)
    mask = torch.ones(60, dtype=torch.float64)
    mask[[1, 2, 3]] = 0
    assert not {1, 2, 3} & set(nearest(ca, mask)[1][0].tolist())
    mask[10:] = 0
    found = nearest(ca, mask)[1][0].tolist()
    assert found[:6] == [0, 4, 5, 6, 7, 8]
    # They count as being as far as the farthest: here residue 9, which the first of them precede.
    assert found[6:10] == [1, 2, 3, 9]


def test_the_ideal_c_beta_is_where_real_ones_are(structures: Path) -> None:
    text = (structures / "pdb1ubi.pdb").read_text()
    found = featurize(read_structure(text, "pdb", residue_limit=2000))
    real = {
        int(line[22:26]) - 1: [float(line[start : start + 8]) for start in (30, 38, 46)]
        for line in text.splitlines()
        if line.startswith("ATOM") and line[12:16] == " CB "
    }
    atoms = with_cb(torch.from_numpy(found.coordinates))
    away = np.linalg.norm(atoms[list(real), CA + 3].numpy() - np.array(list(real.values())), axis=1)
    assert np.median(away) < 0.1
    assert away.max() < 0.5


def test_parameters_are_named_as_in_the_checkpoint(data_folder: Path) -> None:
    state = torch.load(data_folder / "weights" / "v_48_020.pt", map_location="cpu", weights_only=True)[
        "model_state_dict"
    ]
    ours = ProteinMPNN().state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
