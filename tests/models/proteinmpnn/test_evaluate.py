"""The regression gate's measurements, and that they bite."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helixserve.model.contract import Contract
from helixserve.runners import machine, open_runner
from proteinmpnn_model.decode import Decoded, Decoder
from proteinmpnn_model.model import ProteinMPNN
from tests.models.proteinmpnn import kernels

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model.errors import DataError  # after the check for torch
from proteinmpnn_model.evaluate import PARITY, deviation, differing_items, evaluate, golden_cases, mismatches
from proteinmpnn_model.export import GRAPHS
from proteinmpnn_model.weights import load_weights

pytestmark = pytest.mark.torch

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"


def judged(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["allowed"] is not None]


def failing(rows: list[dict]) -> list[str]:
    return [f"{row['case']}: {row['metric']}" for row in judged(rows) if not row["value"] <= row["allowed"]]


def test_the_engine_is_within_every_tolerance(artifacts: Path, weights: Path, data_folder: Path) -> None:
    rows = evaluate(artifacts, weights, data_folder, MODEL / "golden")
    assert failing(rows) == []
    both_widths = machine.widest() == machine.V4
    assert len(rows) == 2 * len(PARITY) + 2 * len(list(golden_cases(MODEL / "golden"))) + 1 + both_widths
    assert all(row["allowed"] in (1e-4, 0) for row in judged(rows))
    # What torch's float32 gives depends on the processor: it is told, and judges nothing.
    assert len(rows) - len(judged(rows)) == len(PARITY)
    assert not [row["case"] for row in judged(rows) if "float32" in row["case"]]


def test_graphs_of_other_weights_are_not(artifacts: Path, weights: Path, data_folder: Path, tmp_path: Path) -> None:
    for library in artifacts.glob("*.so"):
        shutil.copy(library, tmp_path)
    tensors = load_weights(weights)
    tensors["decoder_layers.2.W3.weight"] = tensors["decoder_layers.2.W3.weight"] * np.float32(1.01)
    for name, write in GRAPHS.items():
        (tmp_path / f"{name}.onnx").write_bytes(write(tensors))
    assert len(failing(evaluate(tmp_path, weights, data_folder, MODEL / "golden"))) > len(PARITY)


def test_graphs_that_give_nan_are_infinitely_far(weights: Path, data_folder: Path, tmp_path: Path) -> None:
    """In ONNX Runtime, which runs them; the native runner does not load constants that are no numbers."""
    tensors = load_weights(weights)
    tensors["W_out.bias"] = np.full(21, np.nan, np.float32)
    for name, write in GRAPHS.items():
        (tmp_path / f"{name}.onnx").write_bytes(write(tensors))
    golden = _golden(tmp_path, "score_1a8o_native", "design_1ubi")
    contract = re.sub(r'"helix-kernels[^"]*",', "", (golden.parent / "model.toml").read_text())
    (golden.parent / "model.toml").write_text(
        contract.replace('runner = "proteinmpnn_model.native.runner:NativeRunner"', 'runner = "onnxruntime"')
    )
    rows = evaluate(tmp_path, weights, data_folder, golden)
    assert {row["value"] for row in judged(rows) if "log-probability" in row["metric"]} == {math.inf}
    # Told sequences come back even so.
    passing = [row["case"] for row in judged(rows) if row["value"] <= row["allowed"]]
    assert passing == ["score_1a8o_native"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with the reference on a small structure only, where the golden cases are the question."""
    monkeypatch.setattr("proteinmpnn_model.evaluate.PARITY", ("2n0n_M1.pdb",))


@pytest.mark.parametrize("fault", ["letter", "number", "items", "nan"])
@pytest.mark.usefixtures("few")
def test_a_changed_golden_case_is_noticed(
    fault: str, artifacts: Path, weights: Path, data_folder: Path, tmp_path: Path
) -> None:
    golden = _golden(tmp_path, "design_1ubi")
    case = json.loads((golden / "design_1ubi.json").read_text())
    if fault == "letter":
        case["items"][1]["sequence"] = "A" + case["items"][1]["sequence"][1:]
    elif fault == "number":
        case["items"][0]["log_probability"][50] += 0.001
    elif fault == "nan":
        case["items"][0]["log_probability"][50] = math.nan
    else:
        case["items"].pop()
    (golden / "design_1ubi.json").write_text(json.dumps(case))
    assert failing(evaluate(artifacts, weights, data_folder, golden))


class Drifting(Decoder):
    """Its answers depend on what it was asked before."""

    decoded = 0

    def decode(self, *arguments: Any, **named: Any) -> Decoded:
        self.decoded += 1
        found = super().decode(*arguments, **named)
        return replace(found, log_probabilities_la=found.log_probabilities_la - np.float32(1e-6) * self.decoded)


def test_answers_that_depend_on_earlier_ones_are_noticed(
    artifacts: Path, contract: Contract, data_folder: Path
) -> None:
    def model(kind: type[Decoder]) -> ProteinMPNN:
        graphs = {path.stem: path.read_bytes() for path in artifacts.glob("*.onnx")}
        return ProteinMPNN(kind(open_runner("onnxruntime", graphs)), contract)

    assert differing_items(model(Decoder), model(Decoder), data_folder) == 0
    assert differing_items(model(Drifting), model(Drifting), data_folder) == 4


@pytest.mark.usefixtures("few")
def test_kernels_of_one_width_that_add_up_differently_are_noticed(
    artifacts: Path, weights: Path, data_folder: Path, tmp_path: Path
) -> None:
    if machine.widest() != machine.V4:
        pytest.skip("needs a processor with AVX-512, to run both widths; run there: make test-torch")
    engine = shutil.copytree(artifacts, tmp_path / "engine")
    old, new = "(four[0] + four[2]) + (four[1] + four[3])", "((four[0] + four[1]) + four[2]) + four[3]"
    for name, data in kernels.compiled_with_fault(tmp_path, "x86-64-v3", "vector.h", old, new).items():
        (engine / name).write_bytes(data)
    rows = evaluate(engine, weights, data_folder, _golden(tmp_path, "design_1ubi"))
    assert [row["case"] for row in rows if row["metric"].startswith("items") and row["value"]] == [rows[-1]["case"]]


@pytest.mark.usefixtures("few")
def test_absent_cases_and_structures_are_named(
    artifacts: Path, weights: Path, data_folder: Path, tmp_path: Path
) -> None:
    golden = _golden(tmp_path)
    with pytest.raises(DataError, match="no golden cases"):
        evaluate(artifacts, weights, data_folder, golden)
    with pytest.raises(DataError, match=r"2n0n_M1\.pdb"):
        evaluate(artifacts, weights, tmp_path, golden)


def test_nan_and_nothing_are_infinitely_far() -> None:
    values = np.array([1.0, 2.0])
    assert deviation(values, values) == 0
    assert deviation(values, values + 0.5) == 0.5
    assert deviation(np.zeros(1), np.array([4.03e-5 + 1e-15])) == 4.04e-5, "rounded up"
    for other in (np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.array([1.0]), np.array([])):
        assert deviation(values, other) == math.inf
        assert deviation(other, values) == math.inf
    assert deviation(np.array([]), np.array([])) == math.inf
    assert deviation(np.array([np.inf]), np.array([np.inf])) == math.inf
    assert (mismatches("ACD", "ACE"), mismatches("ACD", "AC")) == (1, math.inf)


def _golden(folder: Path, *names: str) -> Path:
    golden = folder / "model" / "golden"
    golden.mkdir(parents=True)
    shutil.copy(MODEL / "model.toml", golden.parent)
    for name in names:
        shutil.copy(MODEL / "golden" / f"{name}.json", golden)
    return golden
