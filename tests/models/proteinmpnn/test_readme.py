"""The model card says what is so: fields, limits, the example, the table of measured quality."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helixserve.model import tensors as typed
from helixserve.model.contract import Contract
from proteinmpnn_model.model import ProteinMPNN
from tests.models.proteinmpnn import tolerances

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "models" / "proteinmpnn" / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table that follows a heading."""
    lines = README[README.index(f"# {heading}\n") :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---")) + 1
    for line in lines[start:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("heading", "kind"), [("Inputs", "inputs"), ("Outputs", "outputs")])
def test_every_field_of_the_contract_is_described_and_no_other(contract: Contract, heading: str, kind: str) -> None:
    described = {(name.strip("`"), task) for name, task, _ in rows(heading)}
    by_name: dict[str, set[str]] = {}
    for task in contract.tasks.values():
        for name in getattr(task, kind):
            by_name.setdefault(name, set()).add(task.name)
    expected = {(name, "both" if len(tasks) == 2 else next(iter(tasks))) for name, tasks in by_name.items()}
    assert described == expected


def test_limits_are_those_of_the_contract(contract: Contract) -> None:
    found = re.search(
        r"Limits: (\d+) residues with placeholders, ([\d ]+) designed residues a request, (\d+) MB", README
    )
    assert found is not None
    assert int(found[1]) == contract.limits["residues"]
    assert int(found[2].replace(" ", "")) == contract.limits["designed_residues"]
    assert int(found[3]) * 10**6 == contract.limits["request_bytes"]
    found = re.search(r"Of a file: (\d+) chains of protein, ([\d ]+) atoms .*?, ([\d ]+) characters a line", README)
    assert found is not None
    numbers = [int(number.replace(" ", "")) for number in found.groups()]
    assert numbers == [contract.limits[name] for name in ("chains", "atoms", "line_characters")]
    assert f"Of JSON: {contract.limits['nesting']} levels" in README


def test_the_example_runs_as_printed(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"artifacts": artifacts})  # noqa: S102  # what a reader would run
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 2
    assert all(len(sequence) == 76 and 0.3 < float(recovery) < 0.8 for sequence, recovery in printed)


def test_what_is_judged_keeps_its_margin_in_the_card_and_its_limits_are_those_of_the_tests() -> None:
    limits = {}
    for what, limit, *worst in rows("On each kind of processor"):
        if limit != "reported":
            limits[what] = float(limit)
            values = [float(cell.removeprefix("< ")) for cell in worst if cell != "-"]
            assert max(values) * tolerances.MARGIN <= float(limit), what
    assert list(limits.values()) == [
        tolerances.NATIVE, tolerances.NATIVE, tolerances.GOLDEN, tolerances.DOUBLE, tolerances.GRAPHS,
    ]  # fmt: skip


@pytest.mark.parametrize("row", list(rows("Measured quality")), ids=lambda row: row[0])
def test_the_table_of_measured_quality_is_what_comes_out(row: list[str], model: ProteinMPNN, structures: Path) -> None:
    name, _, residues, recovery, score, native = row
    text = (structures / name).read_text()
    designed = _ask(model, "design", structure=text, num_sequences=8, seed=0)
    (scored,) = _ask(model, "score", structure=text, seed=0)
    assert len(designed[0]["log_probability"]) == int(residues)
    assert np.mean([item["recovery"] for item in designed]) == pytest.approx(float(recovery), abs=0.01)
    assert np.mean([item["score"] for item in designed]) == pytest.approx(float(score), abs=0.01)
    assert scored["score"] == pytest.approx(float(native), abs=0.002)


def _ask(model: ProteinMPNN, task: str, **fields: object) -> list[dict]:
    inputs = model.contract.task(task).inputs
    given = [typed.from_value(name, inputs[name].datatype, value) for name, value in fields.items()]
    resolved = model.resolve(task, given, lambda: 0)
    answers = model.predict(resolved, range(model.count(resolved)))
    return [{tensor.name: typed.to_value(tensor) for tensor in item} for item in answers]
