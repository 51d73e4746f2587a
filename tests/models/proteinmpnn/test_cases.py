"""Files that people sent and that were read wrong, and other files of each kind: nothing is lost in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helixserve.errors import InvalidInputError
from proteinmpnn_model.structures.residue_names import CODES, FOUR_LETTERS
from proteinmpnn_model.structures.structure import Structure, read_structure, sniff_format
from tests.models.proteinmpnn.test_structure import line, whole

CASES = Path(__file__).with_name("cases")
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def read(text: str) -> Structure:
    return read_structure(text, sniff_format(text), residue_limit=2000)


def case(name: str) -> str:
    return (CASES / name).read_text(encoding="utf-8")


def chains(found: Structure) -> dict[str, int]:
    return {chain.name: len(chain.residues) for chain in found.chains}


def cif(*, drop: tuple[str, ...] = (), model: str = "1", chain: str = "A", block: str = "x") -> str:
    """One residue as mmCIF; columns in `drop` are left out."""
    columns = {
        "group_PDB": "ATOM", "id": "{at}", "type_symbol": "C", "label_atom_id": "{atom}", "label_alt_id": ".",
        "label_comp_id": "ALA", "label_asym_id": chain, "label_seq_id": "1", "Cartn_x": "{at}.5", "Cartn_y": "2",
        "Cartn_z": "3", "auth_asym_id": chain, "auth_seq_id": "1", "pdbx_PDB_model_num": model,
    }  # fmt: skip
    kept = {name: value for name, value in columns.items() if name not in drop}
    rows = [" ".join(kept.values()).format(at=at, atom=atom) for at, atom in enumerate(("N", "CA", "C", "O"), start=1)]
    return "\n".join([f"data_{block}", "loop_", *(f"_atom_site.{name}" for name in kept), *rows, ""])


# ---- chains behind the end of a model or of a file ----------------------------------------------------


def test_a_chain_behind_end_is_read() -> None:
    found = read(case("END_between_chains.pdb"))
    assert chains(found) == {"A": 76, "B": 76}
    assert found.warnings == ()


@pytest.mark.parametrize(
    "divider", [["END"], ["ENDMDL"], ["MODEL        2"], ["ENDMDL", "MODEL        2"], ["end"], []]
)
def test_a_chain_of_a_later_model_is_read_where_no_earlier_one_has_it(divider: list[str]) -> None:
    found = read("\n".join(["MODEL        1", *whole("A   1"), *divider, *whole("B   1"), "TER", "ENDMDL", "END"]))
    assert chains(found) == {"A": 1, "B": 1}
    assert found.warnings == ()


def test_a_chain_that_a_later_model_has_again_is_named() -> None:
    found = read("\n".join([*whole("A   1"), "ENDMDL", *whole("A   1", "GLY"), *whole("B   1"), "END"]))
    assert found.sequence == "A/A"
    assert found.warnings == (
        "chain 'A' of part 2: left out, for an earlier model of the file has a chain of that name",
    )


def test_the_same_holds_for_mmcif() -> None:
    one, other, again = cif(), cif(model="2", chain="B"), cif(model="2")
    rows = [text.split("pdbx_PDB_model_num\n")[1] for text in (other, again)]
    found = read(one + "".join(rows))
    assert chains(found) == {"A": 1, "B": 1}
    assert found.warnings == (
        "chain 'A' of model 2: left out, for an earlier model of the file has a chain of that name",
    )
    found = read(one + cif(block="y", chain="C"))
    assert chains(found) == {"A": 1}
    assert found.warnings == ("data block 'y': left out, for only the first data block with atoms is read",)


# ---- names of residues ---------------------------------------------------------------------------------


def test_names_of_four_letters_shift_nothing() -> None:
    found = read(case("four_letter_residue_names.pdb"))
    assert (chains(found), found.sequence, found.warnings) == ({"A": 76}, read(case("bom.pdb")).sequence, ())


@pytest.mark.parametrize(("name", "stands_for"), sorted(FOUR_LETTERS.items()))
def test_each_name_of_four_letters_is_read(name: str, stands_for: str) -> None:
    lines = [text[:17] + name + text[21:] for text in whole("A   2")]
    found = read("\n".join([*whole("A   1", "GLY"), *lines]))
    assert found.sequence == ("G" if stands_for == "HOH" else "G" + CODES[stands_for])
    assert found.warnings == ()


def test_a_chain_name_of_two_letters_is_one() -> None:
    """The planted fault: column 21 taken for a residue's name whenever something stands there."""
    lines = [text[:20] + "AB" + text[22:] for text in (*whole("A   1", "HIS"), *whole("A   2", "GLY"))]
    assert chains(read("\n".join(lines))) == {"AB": 2}


def test_protonation_states_are_their_amino_acid() -> None:
    found = read(case("protonation_names.pdb"))
    assert (found.sequence, found.warnings) == (read(case("bom.pdb")).sequence, ())


@pytest.mark.parametrize("name", sorted(name for name in CODES if len(name) == 3))
def test_each_name_of_an_amino_acid_is_read_in_pdb_and_mmcif(name: str) -> None:
    for text in ("\n".join(whole("A   1", name)), cif().replace("ALA", name)):
        assert (read(text).sequence, read(text).warnings) == (CODES[name], ())


def test_what_is_read_as_x_is_named() -> None:
    found = read("\n".join([*whole("A   1"), *whole("A   2", "SEP"), *whole("A   3", "QQQ")]))
    assert found.sequence == "AXX"
    assert found.warnings == ("A:2 SEP, A:3 QQQ: read as X, an unknown amino acid",)


# ---- what is not a residue ---------------------------------------------------------------------------------


def test_water_written_as_atoms_is_no_residue() -> None:
    alone, with_water = read(case("peptide_alone.pdb")), read(case("peptide_ATOM_waters.pdb"))
    assert alone == with_water
    assert len(alone) == 20


@pytest.mark.parametrize("name", ["HOH", "WAT", "SOL", "DOD", "TIP"])
def test_water_of_each_name_is_no_residue(name: str) -> None:
    waters = [line(9 + at, " O", name, f"A{at:>4}") for at in range(2, 5)]
    assert read("\n".join([*whole("A   1"), *waters])) == read("\n".join(whole("A   1")))


@pytest.mark.parametrize("name", [" DA", "  U", " ZN", "HEM", "LIG"])
def test_what_is_no_amino_acid_is_left_out_and_named(name: str) -> None:
    found = read("\n".join([*whole("A   1"), line(9, " P", name, "B   1"), line(10, " P", name, "B   2")]))
    assert chains(found) == {"A": 1}
    assert found.warnings == (f"{name.strip()} of chain 'B' (2 times): left out, for they are no amino acids",)


def test_an_amino_acid_that_is_hetatm_is_named() -> None:
    hetero = [text.replace("ATOM  ", "HETATM") for text in whole("A   2", "SEP")]
    found = read("\n".join([*whole("A   1"), *hetero, *whole("A   3")]))
    assert found.sequence == "AXA"
    assert found.warnings == (
        "A:2: not in the file, but in the numbering: placeholders X stand for them",
        "A:2 SEP: left out, for they are HETATM records (amino acids of a chain are ATOM records)",
    )


# ---- residues twice, and not whole ------------------------------------------------------------------------


def test_one_chain_name_for_two_molecules_is_refused_with_the_residue() -> None:
    with pytest.raises(InvalidInputError, match="residue A:1 is there twice") as caught:
        read(case("same_chain_twice.pdb"))
    assert "chain name of its own" in str(caught.value.fix)


def test_alternative_locations_are_not_taken_for_two_molecules() -> None:
    both = [line(1 + at, f" {atom}", "SER", "A   2", alt=alt) for at, (atom, alt) in
            enumerate((atom, alt) for atom in ("N", "CA", "C", "O") for alt in "AB")]  # fmt: skip
    other = [line(9 + at, f" {atom}", "PRO", "A   2", alt="C") for at, atom in enumerate(("N", "CA", "C", "O"))]
    found = read("\n".join([*whole("A   1"), *both, *other]))
    assert found.sequence == "AS"
    assert found.warnings == (
        "A:2: of two names of one residue the first in the file stands",
        "A:2: of alternative locations of its backbone the first in the file stands",
    )


def test_what_is_kept_but_not_designed_is_named() -> None:
    found = read("\n".join([*whole("A   1"), *whole("A   2", "GLY")[:2], *whole("A   5"), *whole("A   8A")]))
    assert found.sequence == "AGXXAXXA"
    assert found.warnings == (
        "A:2: kept as they are, neither designed nor scored, for the backbone atoms N, CA, C and O are not all there",
        "A:3 to 4, A:6 to 7: not in the file, but in the numbering: placeholders X stand for them",
    )


def test_a_warning_stays_short_and_counts_what_it_does_not_name() -> None:
    (sentence,) = read("\n".join(text for at in range(1, 500) for text in whole(f"A{at:>4}", "QQQ"))).warnings
    assert sentence.startswith("A:1 QQQ, A:2 QQQ, ")
    assert " and 489 more: read as X" in sentence


# ---- marks, blank lines, columns ----------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "\ufeff", "\n", "\ufeff\n\n", "\r\n"])
def test_a_byte_order_mark_and_blank_lines_say_nothing(before: str) -> None:
    plain = case("bom.pdb").removeprefix("\ufeff")
    assert len(read(before + plain)) == 76
    assert read(before + plain) == read(plain)
    assert read(before + cif()) == read(cif())


def test_the_case_with_a_byte_order_mark_has_one() -> None:
    assert case("bom.pdb").startswith("\ufeff")
    assert read(case("bom.pdb")).chains[0].residues[0].atoms.keys() == {"N", "CA", "C", "O"}


def test_columns_of_mmcif_that_can_be_told_are_not_asked_for() -> None:
    assert read(case("cif_few_columns.cif")).sequence == UBIQUITIN
    told = ("group_PDB", "id", "type_symbol", "label_alt_id", "auth_asym_id", "auth_seq_id", "pdbx_PDB_model_num")
    for drop in [(), *((name,) for name in told), told, ("label_asym_id",), ("label_seq_id",)]:
        assert read(cif(drop=drop)) == read(cif()), drop


@pytest.mark.parametrize(
    "drop",
    [
        ("label_atom_id",),
        ("label_comp_id",),
        ("label_asym_id", "auth_asym_id"),
        ("label_seq_id", "auth_seq_id"),
        ("Cartn_x",),
        ("Cartn_y", "Cartn_z"),
    ],
)
def test_a_column_without_which_atoms_mean_nothing_is_named(drop: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(f"_atom_site.{drop[0]}")):
        read(cif(drop=drop))


def test_tags_in_other_capitals_are_read() -> None:
    assert read(re.sub(r"_atom_site\.\w+", lambda tag: tag[0].upper(), cif())) == read(cif())


# ---- what else was lost in silence ----------------------------------------------------------------------


def behind(mark: str, lines: list[str]) -> list[str]:
    return [mark + text for text in lines]


def located(letter: str, lines: list[str]) -> list[str]:
    return [text[:16] + letter + text[17:] for text in lines]


def as_hetero(name: str, lines: list[str]) -> list[str]:
    return [f"HETATM{text[6:17]}{name}{text[20:]}" for text in lines]


@pytest.mark.parametrize("mark", [" ", "\t", "\f", "\0", "> ", "#", '"'])
def test_records_that_begin_elsewhere_are_named(mark: str) -> None:
    found = read("\n".join([*whole("A   1"), *behind(mark, whole("A   2"))]))
    assert chains(found) == {"A": 1}
    assert found.warnings == (
        "line 5, line 6, line 7, line 8: left out, for ATOM or HETATM does not begin in its first column",
    )
    assert read("\n".join(["REMARK  ATOM", "TITLE     ATOM", *whole("A   1")])).warnings == ()


def test_the_last_line_may_end_with_its_coordinates() -> None:
    """Without occupancy and newline, of all lines only the last was found too short."""
    assert chains(read("\n".join(text[:54] for text in whole("A   1")))) == {"A": 1}


def test_each_of_several_files_may_begin_with_a_mark() -> None:
    marked = ["\n".join(behind("\ufeff", whole(place)[:1]) + whole(place)[1:]) for place in ("A   1", "B   1")]
    found = read("\n".join(marked))
    assert (chains(found), found.warnings) == ({"A": 1, "B": 1}, ())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_machine(end: str) -> None:
    found = read(end.join([*whole("A   1"), "END", *whole("B   2"), "END", ""]))
    assert (chains(found), found.warnings) == ({"A": 1, "B": 1}, ())
    assert read(cif().replace("\n", end)) == read(cif())


@pytest.mark.parametrize("letters", ["AB", " A"])
def test_alternative_locations_that_are_not_read_are_named(letters: str) -> None:
    first, second = (located(letter, whole("A   1")) for letter in letters)
    found = read("\n".join([*first, *second, *whole("A   2")]))
    assert found.warnings == ("A:1: of alternative locations of its backbone the first in the file stands",)
    rows = cif().replace(" . ", " A ") + cif().replace(" . ", " B ").split("pdbx_PDB_model_num\n")[1]
    assert read(rows).warnings == found.warnings


def test_selenomethionine_of_a_later_model_is_named_too() -> None:
    found = read("\n".join([*whole("A   1"), "ENDMDL", *as_hetero("MSE", whole("A   2"))]))
    assert [text.partition(":")[0] for text in found.warnings] == ["chain 'A' of part 2"]
    later = cif(model="2").replace("ATOM ", "HETATM ").replace("ALA", "MSE").split("pdbx_PDB_model_num\n")[1]
    assert [text.partition(":")[0] for text in read(cif() + later).warnings] == ["chain 'A' of model 2"]


@pytest.mark.parametrize("name", ["HOH", "HEM"])
def test_waters_and_ligands_of_an_earlier_part_are_no_chain(name: str) -> None:
    """As of a receptor whose waters bear the name of the binder's chain."""
    found = read("\n".join([*whole("A   1"), *as_hetero(name, whole("B   9")), "END", *whole("B   1")]))
    assert chains(found) == {"A": 1, "B": 1}
    other = cif(chain="B").replace("ATOM ", "HETATM ").replace("ALA", name).split("pdbx_PDB_model_num\n")[1]
    later = cif(chain="B", model="2").split("pdbx_PDB_model_num\n")[1]
    assert chains(read(cif() + other + later)) == {"A": 1, "B": 1}


@pytest.mark.parametrize(
    ("column", "value"), [("group_PDB", "'ATOM'"), ("group_PDB", "atom"), ("model", "'2'"), ("chain", "'A'")]
)
def test_quotes_change_no_meaning_in_mmcif(column: str, value: str) -> None:
    """A later model was taken for a part of the first, or left out in silence."""
    given = {"model": "2", "chain": "A"} | ({column: value} if column != "group_PDB" else {})
    later = cif(**given).split("pdbx_PDB_model_num\n")[1]  # type: ignore[arg-type]  # texts only
    if column == "group_PDB":
        later = later.replace("ATOM", value)
    found = read(cif() + later)
    assert (chains(found), len(found.warnings)) == ({"A": 1}, 1)
    assert found.warnings[0].startswith("chain 'A' of model 2: left out")
