"""PDB and mmCIF files as residues: what real files hold, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from helixserve.errors import HelixServeError, InvalidInputError, TooLargeError
from proteinmpnn_model.structures.structure import Structure, is_whole, read_structure, sniff_format

GOLDEN = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn" / "golden"


def read(text: str, limit: int = 2000) -> Structure:
    return read_structure(text, sniff_format(text), residue_limit=limit)


def line(
    serial: int, name: str, residue: str, place: str, *, x: str = "1.000", record: str = "ATOM", alt: str = " "
) -> str:
    """An ATOM line; `place` is chain, number and insertion code, as in `A   1A`."""
    return f"{record:<6}{serial:>5} {name:<4}{alt}{residue:>3} {place:<6}   {x:>8}{'2.000':>8}{'3.000':>8}  1.00  0.00"


def whole(place: str, residue: str = "ALA", serial: int = 1) -> list[str]:
    return [line(serial + i, f" {name}", residue, place, x=f"{i}.500") for i, name in enumerate(("N", "CA", "C", "O"))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEADER    X\nATOM ...", "pdb"),
        ("# comment\n\n  data_1ABC\nloop_", "mmcif"),
        ("DATA_x", "mmcif"),
        ("", "pdb"),
        ("\n#\n", "pdb"),
    ],
)
def test_format_is_told_from_the_first_line_that_says_something(text: str, expected: str) -> None:
    assert sniff_format(text) == expected


@pytest.mark.parametrize("name", ["1A8O", "1LCD", "2XHE"])
def test_mmcif_gives_what_its_pdb_file_gives(structures: Path, name: str) -> None:
    pdb, cif = (read((structures / f"{name}.{suffix}").read_text()) for suffix in ("pdb", "cif"))
    assert {chain.name: chain for chain in pdb.chains} == {chain.name: chain for chain in cif.chains}


def test_a_gap_in_the_numbering_shows_as_placeholders() -> None:
    found = read("\n".join([*whole("A   7"), *whole("A  10", "GLY")])).chains[0]
    assert [(residue.number, residue.code, residue.present) for residue in found.residues] == [
        (7, "A", True), (8, "X", False), (9, "X", False), (10, "G", True),
    ]  # fmt: skip


def test_insertion_codes_follow_their_number(structures: Path) -> None:
    found = read("\n".join([*whole("A  52A", "GLY"), *whole("A  53", "SER"), *whole("A  52", "TRP")])).chains[0]
    assert [(residue.number, residue.insertion, residue.code) for residue in found.residues] == [
        (52, "", "W"), (52, "A", "G"), (53, "", "S"),
    ]  # fmt: skip
    labels = [f"{r.number}{r.insertion}" for r in read((structures / "4ZHL.cif").read_text()).chains[0].residues]
    assert labels == sorted(labels, key=lambda label: (int(label.rstrip("ABCDEFGHIJ")), label))
    assert sum(label[-1].isalpha() for label in labels) == 19


def test_of_two_locations_and_of_two_residue_names_the_first_in_the_file_counts(structures: Path) -> None:
    text = "\n".join([line(9, " CA", "SER", "A   1", x="7.000", alt="B"), *whole("A   1", "PRO")])
    residue = read(text).chains[0].residues[0]
    assert (residue.code, residue.atoms["CA"][0]) == ("S", 7.0)
    # 1EJG has PRO and SER at 22, LEU and ILE at 25: one residue each.
    assert len(read((structures / "pdb1ejg.pdb").read_text())) == 46


def test_solvent_is_left_out_and_selenomethionine_is_methionine(structures: Path) -> None:
    residues = read((structures / "1A8O.pdb").read_text()).chains[0].residues
    assert len(residues) == 70
    assert [residue.code for residue in residues if residue.number in (151, 185, 214, 215)] == ["M"] * 4


def test_a_residue_with_a_missing_atom_is_not_whole(structures: Path) -> None:
    found = read((structures / "2XHE.pdb").read_text()).chains[0]
    partial = [residue for residue in found.residues if residue.present and not is_whole(residue)]
    assert len(partial) == 1
    assert 0 < len(partial[0].atoms) < 4


def test_only_the_first_model_counts(structures: Path) -> None:
    text = (structures / "pdb2k39_truncated.pdb").read_text()
    first, whole_file = read(text[: text.index("ENDMDL")]), read(text)
    assert whole_file.chains == first.chains
    assert (first.warnings, len(whole_file.warnings)) == ((), 1)


def test_the_golden_structure_is_the_backbone_of_the_real_file(structures: Path) -> None:
    assert read((GOLDEN / "1ubi.pdb").read_text()) == read((structures / "pdb1ubi.pdb").read_text())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no residue with all of the atoms"),
        ("hello\nworld", "no residue with all of the atoms"),
        ("data_x\n_cell.length_a 1\n", "no atoms"),
        ("data_x\nloop_\n_atom_site.id\n1 2 'unclosed", "not readable as mmcif"),
        ("\n".join(whole("A   1")[:3]), "no residue with all of the atoms"),
        ("\n".join(line(1, " O", "HOH", f"A   {i}", record="HETATM") for i in range(3)), "no residue with all"),
        (
            "\n".join([*whole("A   1"), line(5, " N", "ALA", "A   2", x="nan")]),
            "line 5: the coordinate in columns 31-38",
        ),
        ("\n".join([*whole("A   1"), line(5, " N", "ALA", "A   2", x="inf")]), "not a finite number"),
        (
            "\n".join([*whole("A   1"), line(5, " N", "ALA", "A   2", x="nan").replace("ATOM", "atom")]),
            "not a finite number",
        ),
        ("\n".join(["ENDMDL", *whole("A   1"), line(5, " N", "ALA", "A   2", x="nan")]), "line 6"),
        ("\n".join([*whole("A   1"), line(5, " N", "ALA", "A   2", x="")]), "not a finite number"),
        ("\n".join([*whole("A   1"), line(5, " N", "ALA", "A   2", x="\x1f1.000")]), "not a finite number"),
        ("\n".join(whole("A   03")), "the insertion code '3' of residue 0 is not a letter"),
        ("\n".join([*whole("A   1"), line(5, " N", "ALA", "A   2")[:40]]), "columns 39-46"),
        ("\n".join([*whole("A   1"), line(5, " N", "ALA", "A   ?")]), "line 5: columns 23-26 hold no residue number"),
    ],
)
def test_what_is_no_structure_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(text)
    assert says in str(caught.value)
    assert caught.value.where == "structure"


@pytest.mark.parametrize("value", ["?", ".", "nan", "1e300", "-1e6", "inf"])
def test_mmcif_coordinates_that_are_not_finite_are_refused(structures: Path, value: str) -> None:
    text = (structures / "1A8O.cif").read_text()
    bad = text.replace("19.594", value, 1)
    assert bad != text
    with pytest.raises(InvalidInputError, match="151"):
        read(bad)


def test_a_structure_without_backbones_is_refused(structures: Path) -> None:
    with pytest.raises(InvalidInputError, match="N, CA, C and O"):
        read((structures / "pdb1ubi_ca.pdb").read_text())


def test_too_many_residues_are_refused_and_counted(structures: Path) -> None:
    with pytest.raises(TooLargeError, match=r"1422 residues \(1206 in the file, 216 in numbering gaps\)") as caught:
        read((structures / "pdb2nwl-opm.pdb").read_text(), limit=1400)
    assert caught.value.where == "structure"


def test_a_huge_gap_is_refused_before_it_is_filled() -> None:
    with pytest.raises(TooLargeError, match="in numbering gaps"):
        read("\n".join([*whole("A-999"), *whole("A9999")]))
    with pytest.raises(TooLargeError):
        read(_cif_with_numbers("-2000000000", "2000000000"))


def _cif_with_numbers(*numbers: str) -> str:
    columns = [
        *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"),
        *("label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z", "auth_seq_id"),
    ]
    head = "data_x\nloop_\n" + "\n".join(f"_atom_site.{name}" for name in columns)
    rows = [
        f"ATOM {serial} C {atom} . ALA A {serial} 1.0 2.0 3.0 {number}"
        for serial, (number, atom) in enumerate(((n, a) for n in numbers for a in ("N", "CA", "C", "O")), start=1)
    ]
    return "\n".join([head, *rows, ""])


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_order_of_residues_in_the_file_does_not_matter(data: st.DataObject) -> None:
    blocks = [whole(f"A{number:>4}{code}", residue) for number, code, residue in
              ((3, " ", "GLY"), (4, " ", "TRP"), (4, "A", "SER"), (4, "B", "VAL"), (9, " ", "ALA"))]  # fmt: skip
    shuffled = data.draw(st.permutations(blocks))
    assert read("\n".join(chain.from_iterable(shuffled))) == read("\n".join(chain.from_iterable(blocks)))


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("file_format", ["pdb", "mmcif"])
def test_any_text_is_read_or_refused(text: str, file_format: str) -> None:
    with suppress(HelixServeError):
        read_structure(text, file_format, residue_limit=50)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("name", ["2n0n_M1.pdb", "3JQH.cif"])
def test_a_damaged_file_is_read_or_refused(structures: Path, name: str, data: st.DataObject) -> None:
    text = (structures / name).read_text()
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 200)))
    patch = data.draw(st.text(alphabet="ATOM \n0123456789.-+eE?_'\";#naifX", max_size=40))
    try:
        structure = read(text[:start] + patch + text[end:])
    except HelixServeError:
        return
    assert len(structure) <= 2000
    assert all(abs(value) <= 1e5 for c in structure.chains for r in c.residues for a in r.atoms.values() for value in a)
