from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_to_metal.guardrails import contract
from tests.model_to_metal.project import write_toy


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


def replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        path = model / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "not TOML": (lambda model: (model / "model.toml").write_text("name ="), "TOML"),
    "absent": (lambda model: (model / "model.toml").unlink(), "cannot read"),
    "an unknown data type": (replace("model.toml", '"FP32"', '"FP31"'), "FP31"),
    "another name": (replace("model.toml", 'name = "toy"', 'name = "boy"'), "'boy'"),
    "no hook": (replace("model.toml", 'export = "toy_model.export:export"', ""), "[stages] export"),
    "a hook without a function": (replace("model.toml", ".export:export", ".export"), "[stages] export"),
    "a hook in no module": (replace("model.toml", "toy_model.export:", "toy_model.exports:"), "toy_model.exports"),
    "a hook that is not defined": (replace("src/toy_model/export.py", "def export", "def expert"), "does not define"),
    "a model that is not defined": (replace("src/toy_model/model.py", "class Toy", "class Boy"), "[serve] model"),
    "no target": (replace("model.toml", "[target]", "[targets]"), "[target] name"),
    "an unknown target": (replace("model.toml", '"onnxruntime-cpu"', '"abacus"'), "'abacus'"),
    "a runner that is not the target's": (replace("model.toml", '"onnxruntime-cpu"', '"native-cpu"'), "another runner"),
    "no bentofile": (lambda model: (model / "bentofile.yaml").unlink(), "missing"),
    "no data lock": (lambda model: (model / "dvc.lock").unlink(), "missing"),
    "no environment lock": (lambda model: (model / "environment/serve.lock").unlink(), "missing"),
    "not Python": (replace("src/toy_model/export.py", "def export(", "def export(:"), "not Python"),
}  # fmt: skip


def test_a_whole_model_has_no_findings(toy: Path) -> None:
    assert contract.check(toy) == []


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
def test_bites(toy: Path, fault: Callable[[Path], object], said: str) -> None:
    fault(toy)
    findings = contract.check(toy)
    assert findings
    assert any(said in f"{finding.file} {finding.message}" for finding in findings)
    assert all(finding.rule == "contract" and finding.file and finding.fix for finding in findings)
