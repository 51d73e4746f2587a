"""What answers say of the files of `test_cases`: the same bytes where nothing differs, labels, warnings, and no X."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helix_lineage.formats.typed import encode
from helixserve.errors import InvalidInputError
from helixserve.model import tensors as typed
from tests.models.proteinmpnn.conftest import Ask

CASES = Path(__file__).with_name("cases")


def case(name: str) -> str:
    return (CASES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("peptide_alone.pdb", "peptide_ATOM_waters.pdb"),
        ("bom.pdb", "four_letter_residue_names.pdb"),
        ("bom.pdb", "protonation_names.pdb"),
    ],
)
@pytest.mark.parametrize("task", ["design", "score"])
def test_the_answer_is_the_same_for_what_says_the_same(ask: Ask, task: str, one: str, other: str) -> None:
    answers = [
        [encode(tuple(item.values())) for item in ask(task, structure=case(name), seed=7)] for name in (one, other)
    ]
    assert answers[0] == answers[1]


def test_x_is_never_chosen_whatever_is_omitted(ask: Ask) -> None:
    request = json.loads(case("omit_C_gives_X.json"))
    items = ask("design", **request)
    assert len(items) == 200
    designed = "".join(str(typed.scalar(item["sequence"])) for item in items)
    assert not {"X", "C"} & set(designed)


@pytest.mark.parametrize(
    ("omit", "same_as"), [("", "X"), ("C", "XC"), ("CYS,Met", "CM"), ("c m", "MC"), ("S,E,R", "SRE")]
)
def test_what_is_omitted_is_told_in_one_way(ask: Ask, omit: str, same_as: str) -> None:
    def designed(text: str) -> list[bytes]:
        items = ask("design", structure=case("peptide_alone.pdb"), seed=3, temperature=1.0, omit=text)
        return [encode(tuple(item.values())) for item in items]

    assert designed(omit) == designed(same_as)


@pytest.mark.parametrize("omit", ["CYS", "ser", "Ala", "ACDEFGHIKLMNPQRSTVWY", "B", "CYS,ZZZ"])
def test_what_is_not_clear_is_refused(ask: Ask, omit: str) -> None:
    with pytest.raises(InvalidInputError, match="omit"):
        ask("design", structure=case("peptide_alone.pdb"), omit=omit)


@pytest.mark.parametrize("task", ["design", "score"])
def test_each_position_has_its_label_and_what_was_done_is_told(ask: Ask, task: str, structures: Path) -> None:
    (item,) = ask(task, structure=(structures / "2n0n_M1.pdb").read_text(), seed=1)
    labels, letters = typed.texts(item["labels"]), str(typed.scalar(item["sequence"])).replace("/", "")
    assert len(labels) == len(letters) == 10
    assert labels[:3] == ["A:1", "A:2", "A:3"]
    assert [sentence.partition(":")[0] for sentence in typed.texts(item["warnings"])] == ["A", "A", "NH2 of chain 'A'"]
    (clean,) = ask(task, structure=case("END_between_chains.pdb"), seed=1)
    assert typed.texts(clean["warnings"]) == []
    assert typed.texts(clean["labels"])[75:77] == ["A:76", "B:1"]
