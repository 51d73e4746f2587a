"""Residues as arrays, and the words of a request against a structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from helixserve.errors import InvalidInputError
from proteinmpnn_model import featurize
from proteinmpnn_model.structures.structure import ALPHABET, Chain, Residue, Structure, read_structure, sniff_format

ATOMS = {"N": (1.0, 2.0, 3.0), "CA": (2.0, 2.0, 3.0), "C": (3.0, 2.0, 3.0), "O": (4.0, 2.0, 3.0)}
STRUCTURE = Structure(
    (
        Chain("H", (Residue(99, "", "A", ATOMS), Residue(100, "", "C", ATOMS), Residue(100, "A", "D", ATOMS))),
        Chain(
            "", (Residue(-2, "", "E", ATOMS), Residue(-1, "", present=False), Residue(0, "", "F", {"N": ATOMS["N"]}))
        ),
    )
)


def test_arrays_of_a_small_structure() -> None:
    backbone = featurize.featurize(STRUCTURE)
    assert backbone.mask.tolist() == [1, 1, 1, 1, 0, 0]
    assert backbone.chain.tolist() == [1, 1, 1, 2, 2, 2]
    assert backbone.residue_index.tolist() == [0, 1, 2, 103, 104, 105]
    assert [ALPHABET[index] for index in backbone.native] == list("ACDEXF")
    assert backbone.coordinates.shape == (6, 4, 3)
    assert backbone.coordinates[0].tolist() == [list(ATOMS[name]) for name in ("N", "CA", "C", "O")]
    # A missing atom is at the origin, and atoms of a residue that is not whole stay: as upstream has it.
    assert not backbone.coordinates[4].any()
    assert backbone.coordinates[5].tolist() == [[1, 2, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_arrays_of_a_real_structure(structures: Path) -> None:
    text = (structures / "pdb3hsy.pdb").read_text()
    backbone = featurize.featurize(read_structure(text, sniff_format(text), residue_limit=2000))
    assert len(backbone) == 750
    assert int(backbone.mask.sum()) == 730
    assert backbone.coordinates.dtype == np.float32
    assert np.isfinite(backbone.coordinates).all()


@given(letters=st.text(alphabet=ALPHABET, min_size=6, max_size=6))
def test_sequences_survive_the_way_to_indices_and_back(letters: str) -> None:
    text = featurize.decode_sequence(STRUCTURE, featurize.encode_sequence(letters))
    assert text == f"{letters[:3]}/{letters[3:]}"
    assert featurize.check_sequence(STRUCTURE, text.lower()) == text


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ("ACDEXF", "1 chains, the structure has 2"),
        ("ACD/EXF/", "3 chains"),
        ("AC/EXF", "chain 'H' has 3 residues, its sequence has 2"),
        ("ACD/EBZ", "chain '' has the letters B, Z"),
        ("ACD/EX-", "letters -"),
    ],
)
def test_a_sequence_that_does_not_fit_is_refused(sequence: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        featurize.check_sequence(STRUCTURE, sequence)
    assert caught.value.where == "sequence"
    assert caught.value.fix


def test_chains_come_in_file_order_each_once() -> None:
    assert featurize.check_chains(STRUCTURE, ["", "H", "H"]) == ["H", ""]
    with pytest.raises(InvalidInputError, match="no chain 'B'"):
        featurize.check_chains(STRUCTURE, ["B"])


def test_positions_come_in_file_order_each_once() -> None:
    assert featurize.check_positions(STRUCTURE, [":-2", "H:100A", "H:099", "H:100A"]) == ["H:99", "H:100A", ":-2"]


@pytest.mark.parametrize("label", ["H:101", "H", "100", ":-1", "H:100a", "H:1 00", "B:99", "", ":", "H:100AB", "H:٣"])
def test_a_position_that_the_structure_has_not_is_refused(label: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        featurize.check_positions(STRUCTURE, [label])
    assert caught.value.where == "fixed_positions"


def test_free_are_residues_of_the_chains_asked_for_that_are_whole_and_not_fixed() -> None:
    backbone = featurize.featurize(STRUCTURE)
    assert featurize.designed_mask(STRUCTURE, backbone, ["H", ""]).tolist() == [1, 1, 1, 1, 0, 0]
    assert featurize.designed_mask(STRUCTURE, backbone, ["H"], ["H:100"]).tolist() == [1, 0, 1, 0, 0, 0]
    assert featurize.designed_mask(STRUCTURE, backbone, [""], [":-2"]).tolist() == [0, 0, 0, 0, 0, 0]
