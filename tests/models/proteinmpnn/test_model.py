"""The tasks, from typed tensors to typed tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helix_lineage.formats.typed import Tensor, encode
from helixserve.errors import InvalidInputError, TooLargeError
from helixserve.model import tensors as typed
from helixserve.model.contract import Contract
from proteinmpnn_model.model import ProteinMPNN
from tests.models.proteinmpnn.test_structure import whole

GOLDEN = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn" / "golden"
UBIQUITIN = (GOLDEN / "1ubi.pdb").read_text()
NATIVE = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def tensors(model: ProteinMPNN, task: str, **fields: Any) -> list[Tensor]:
    inputs = model.contract.task(task).inputs
    return [typed.from_value(name, inputs[name].datatype, value) for name, value in fields.items()]


def resolve(model: ProteinMPNN, task: str, **fields: Any) -> tuple[Tensor, ...]:
    return model.resolve(task, tensors(model, task, **fields), lambda: 4242)


def answer(model: ProteinMPNN, task: str, items: Sequence[int] = (0,), **fields: Any) -> list[dict[str, Tensor]]:
    resolved = resolve(model, task, **fields)
    return [{tensor.name: tensor for tensor in item} for item in model.predict(resolved, items)]


def value(item: dict[str, Tensor], name: str) -> Any:
    return typed.scalar(item[name])


def test_every_item_alone_has_the_bytes_it_has_among_a_hundred(model: ProteinMPNN, structures: Path) -> None:
    text = (structures / "2n0n_M1.pdb").read_text()
    resolved = resolve(model, "design", structure=text, num_sequences=100, temperature=1.0, seed=0)
    together = [encode(item) for item in model.predict(resolved, range(100))]
    alone = [encode(next(iter(model.predict(resolved, [item])))) for item in range(100)]
    backwards = [encode(item) for item in model.predict(resolved, range(99, -1, -1))]
    assert together == alone == backwards[::-1]
    assert len(set(together)) > 90


def test_an_item_does_not_depend_on_how_many_are_asked_for(model: ProteinMPNN) -> None:
    few = answer(model, "design", [1], structure=UBIQUITIN, num_sequences=2, seed=0)
    many = answer(model, "design", [1], structure=UBIQUITIN, num_sequences=1000, seed=0)
    assert encode(few[0].values()) == encode(many[0].values())


def test_the_examples_of_the_contract_are_answered(model: ProteinMPNN) -> None:
    examples = model.contract.document["examples"]
    assert set(examples) == set(model.contract.tasks)
    designed, scored = (answer(model, task, **examples[task])[0] for task in ("design", "score"))
    assert len(value(designed, "sequence")) == len(value(scored, "sequence")) == 3


def test_zero_is_a_seed_and_another_seed_gives_another_sequence(model: ProteinMPNN) -> None:
    first, again, other = (
        answer(model, "design", structure=UBIQUITIN, temperature=1.0, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert encode(first.values()) == encode(again.values())
    assert value(first, "sequence") != value(other, "sequence")


def test_designs_resemble_the_native_sequence(model: ProteinMPNN) -> None:
    items = answer(model, "design", range(8), structure=UBIQUITIN, num_sequences=8, seed=0)
    assert np.mean([value(item, "recovery") for item in items]) > 0.4
    for item in items:
        same = sum(a == b for a, b in zip(value(item, "sequence"), NATIVE, strict=True))
        assert value(item, "recovery") == np.float32(same / 76)
        log_probability = typed.to_array(item["log_probability"])
        assert value(item, "score") == pytest.approx(-log_probability.mean(), rel=1e-6)


def test_scoring_a_design_with_its_seed_gives_its_score(model: ProteinMPNN) -> None:
    designed = answer(model, "design", structure=UBIQUITIN, seed=5)[0]
    scored = answer(model, "score", structure=UBIQUITIN, seed=5, sequence=value(designed, "sequence"))[0]
    assert value(scored, "score") == value(designed, "score")
    assert value(scored, "sequence") == value(designed, "sequence")


def test_the_native_sequence_scores_worse_than_a_design_and_better_than_nonsense(model: ProteinMPNN) -> None:
    scores = [
        value(answer(model, "score", structure=UBIQUITIN, seed=0, **given)[0], "score")
        for given in ({"sequence": value(answer(model, "design", structure=UBIQUITIN, seed=0)[0], "sequence")}, {},
                      {"sequence": NATIVE[::-1]})
    ]  # fmt: skip
    assert scores == sorted(scores)
    assert scores[2] > scores[1] + 1


def test_fixed_positions_other_chains_and_gaps_keep_what_they_are(model: ProteinMPNN, structures: Path) -> None:
    text = (structures / "pdb3hsy.pdb").read_text()
    native = "".join(value(answer(model, "score", structure=text, seed=0)[0], "sequence"))
    first, _ = native.split("/")
    fixed = [f"B:{number}" for number in range(20, 60)]
    item = answer(model, "design", structure=text, chains=["B"], fixed_positions=fixed, seed=0)[0]
    designed = value(item, "sequence")
    assert designed.split("/")[0] == first
    assert first.count("X") == 20
    places = {index for index in range(len(native)) if designed[index] != native[index]}
    start = len(first) + 1 + 20 - _first_number(text, "B")
    assert places.isdisjoint(range(start, start + 40))
    assert len(places) > 100
    log_probability = typed.to_array(item["log_probability"])
    missing = np.array([letter == "X" for letter in native.replace("/", "")])
    assert not log_probability[missing].any()
    assert (log_probability[~missing] < 0).all()
    free = [index for index in range(len(first), len(missing)) if not start - 1 <= index < start + 39]
    assert value(item, "score") == pytest.approx(-log_probability[free].mean(), rel=1e-6)
    assert value(item, "global_score") == pytest.approx(-log_probability[~missing].mean(), rel=1e-6)


def _first_number(pdb: str, chain: str) -> int:
    return min(int(line[22:26]) for line in pdb.splitlines() if line.startswith("ATOM") and line[21] == chain)


def test_omitted_amino_acids_are_never_chosen(model: ProteinMPNN) -> None:
    item = answer(model, "design", structure=UBIQUITIN, temperature=10.0, omit="ACDEFGHIKLMNPQRX", seed=0)[0]
    assert set(value(item, "sequence")) == set("STVWY")


def test_answers_keep_the_contract(model: ProteinMPNN, contract: Contract) -> None:
    for task in contract.tasks.values():
        for item in answer(model, task.name, structure=UBIQUITIN):
            assert set(item) == set(task.outputs)
            for name, field in task.outputs.items():
                field.check(item[name])


def test_defaults_are_filled_in_and_resolving_again_changes_nothing(model: ProteinMPNN) -> None:
    resolved = {tensor.name: tensor for tensor in resolve(model, "design", structure=UBIQUITIN)}
    plain = {name: typed.to_value(tensor) for name, tensor in resolved.items() if name != "structure"}
    assert plain == {
        "task": "design", "format": "pdb", "num_sequences": 1, "temperature": 0.1, "seed": 4242, "chains": "A",
        "fixed_positions": [], "omit": "X",
    }  # fmt: skip
    given = [tensor for name, tensor in resolved.items() if name != "task"]
    assert encode(model.resolve("design", given, lambda: 1)) == encode(resolved.values())


def test_requests_that_mean_the_same_are_the_same_bytes(model: ProteinMPNN) -> None:
    one = resolve(model, "design", structure=UBIQUITIN, fixed_positions=["A:7", "A:2"], omit="cx", format="PDB")
    other = resolve(
        model, "design", structure=UBIQUITIN, fixed_positions=["A:2", "A:7", "A:2"], omit="XCC", chains=["A"]
    )
    assert encode(one) == encode(other)


def test_mmcif_gives_the_bytes_that_its_pdb_file_gives(model: ProteinMPNN, structures: Path) -> None:
    pdb, cif = (
        answer(model, "design", structure=(structures / f"1A8O.{suffix}").read_text(), seed=0)[0]
        for suffix in ("pdb", "cif")
    )
    assert encode(pdb.values()) == encode(cif.values())


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("design", {"structure": "no structure"}, "structure", "N, CA, C and O"),
    ("design", {"structure": UBIQUITIN.replace(" 24.294", "    nan")}, "structure", "line 1"),
    ("design", {"structure": UBIQUITIN, "format": "mmcif"}, "structure", "mmcif"),
    ("design", {"structure": UBIQUITIN, "format": "xyz"}, "format", "'xyz'"),
    ("design", {"structure": UBIQUITIN, "chains": ["Z"]}, "chains", "no chain 'Z'"),
    ("design", {"structure": UBIQUITIN, "chains": []}, "chains", "no residue is left"),
    ("design", {"structure": UBIQUITIN, "fixed_positions": ["A:77"]}, "fixed_positions", "A:77"),
    (
        "design",
        {"structure": UBIQUITIN, "fixed_positions": [f"A:{i}" for i in range(1, 77)]},
        "chains",
        "all are fixed",
    ),
    ("design", {"structure": UBIQUITIN, "omit": "B"}, "omit", "letters B"),
    ("design", {"structure": UBIQUITIN, "omit": "ACDEFGHIKLMNPQRSTVWYX"}, "omit", "no amino acid"),
    ("design", {"structure": UBIQUITIN, "temperature": 0.0}, "temperature", "temperature"),
    ("design", {"structure": UBIQUITIN, "temperature": float("nan")}, "temperature", "temperature"),
    ("design", {"structure": UBIQUITIN, "num_sequences": 0}, "num_sequences", "num_sequences"),
    ("design", {}, "structure", "required"),
    ("score", {"structure": UBIQUITIN, "sequence": NATIVE[1:]}, "sequence", "76 residues"),
    ("score", {"structure": UBIQUITIN, "sequence": NATIVE.replace("M", "Z")}, "sequence", "letters Z"),
]


@pytest.mark.parametrize(("task", "fields", "where", "says"), REFUSED)
def test_bad_input_is_refused_with_its_field_and_a_sentence(
    model: ProteinMPNN, task: str, fields: dict[str, Any], where: str, says: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve(model, task, **fields)
    assert caught.value.where == where
    assert says in str(caught.value)


def test_what_is_too_large_is_refused_as_such(model: ProteinMPNN, structures: Path) -> None:
    large = "\n".join([*whole("A-999"), *whole("A9999")])  # with the placeholders of the gap between them
    with pytest.raises(TooLargeError, match="at most 2000"):
        resolve(model, "score", structure=large)
    text = (structures / "pdb3enl.pdb").read_text()
    with pytest.raises(TooLargeError, match="at most 573 sequences") as caught:
        resolve(model, "design", structure=text, num_sequences=1000)
    assert caught.value.where == "num_sequences"
    assert len(resolve(model, "design", structure=text, num_sequences=573)) == 9


def test_an_unknown_task_and_text_that_is_not_utf8_are_refused(model: ProteinMPNN) -> None:
    with pytest.raises(InvalidInputError):
        model.resolve("fold", [], lambda: 0)
    with pytest.raises(InvalidInputError, match="UTF-8"):
        model.resolve("design", [typed.from_texts("structure", [b"\xff\xfe"])], lambda: 0)


def at(points: Sequence[tuple[float, float, float]]) -> str:
    """A chain of alanines whose atoms N, CA, C and O lie at the points, in turn."""
    lines = []
    for number, (x, y, z) in enumerate(points):
        name, residue = ("N", "CA", "C", "O")[number % 4], number // 4 + 1
        lines.append(f"ATOM  {number:>5}  {name:<3} ALA A{residue:>4}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00")
    return "\n".join(lines)


DEGENERATE = {
    "all atoms at one point": [(1.0, 2.0, 3.0)] * 240,
    "all atoms at the origin": [(0.0, 0.0, 0.0)] * 240,
    "on a line": [(float(i), 0.0, 0.0) for i in range(240)],
    "as far apart as a file can say": [((-1) ** i * 999.0, (-1) ** (i // 2) * -999.0, 9999.0) for i in range(240)],
    "one residue": [(0.0, 0.0, 0.0)] * 4,
    "the same residue twice": [(float(i % 4), 1.0, float(i % 3)) for i in range(240)],
}


@pytest.mark.parametrize("what", DEGENERATE)
@pytest.mark.parametrize("task", ["design", "score"])
def test_answers_on_impossible_backbones_are_finite_and_the_same_again(
    model: ProteinMPNN, task: str, what: str
) -> None:
    text = at(DEGENERATE[what])
    item, again = (answer(model, task, structure=text, seed=1)[0] for _ in range(2))
    assert encode(item.values()) == encode(again.values())
    for tensor in item.values():
        assert tensor.datatype == "BYTES" or np.isfinite(typed.to_array(tensor)).all(), tensor.name
