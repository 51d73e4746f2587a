from __future__ import annotations

from pathlib import Path

import pytest

from helix_lineage.formats.canonical import loads
from model_to_metal.guardrails.finding import GuardFinding
from model_to_metal.stages import guard
from model_to_metal.stages.interface import StageResult, StageSettings, StageTask, record as record_of
from tests.model_to_metal.project import ROOT, write_toy


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageTask:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}/lineage/src:{ROOT}/platform/src")
    output, artifacts = tmp_path / "output", tmp_path / "artifacts"
    output.mkdir()
    artifacts.mkdir()
    (artifacts / "factor.txt").write_text("2")
    return StageTask(model=write_toy(tmp_path / "toy"), output=output, inputs={"engine": artifacts})


def test_a_good_model_passes_every_rule(task: StageTask) -> None:
    verdict = guard.make(task)
    assert verdict == {"passed": True, "rules": ["contract", "locks-in-step", "no-pickle", "serves"], "findings": []}


def test_what_does_not_pass_by_reading_is_not_run(task: StageTask) -> None:
    marker = task.model / "ran"
    path = task.model / "src/toy_model/model.py"
    path.write_text(f"import pickle\nopen({str(marker)!r}, 'w')\n" + path.read_text())
    verdict = guard.make(task)
    assert verdict["passed"] is False
    assert "serves" not in verdict["rules"]
    assert not marker.exists()


def test_a_refusal_is_a_record_with_file_line_and_fix(task: StageTask) -> None:
    path = task.model / "src/toy_model/weights.py"
    path.write_text("\nimport pickle\n" + path.read_text())
    found = guard.make(task)
    plan = StageSettings({"model": "toy", "source": "sha256:" + "1" * 64, "locks": {}})
    record = record_of(guard.SPEC, StageResult(plan=plan, found=found))
    (finding,) = record.parameters["findings"]
    assert record.parameters["passed"] is False
    assert (finding["rule"], finding["file"], finding["line"]) == ("no-pickle", "src/toy_model/weights.py", 2)
    assert finding["message"]
    assert finding["fix"]
    assert loads((task.output / "findings.json").read_bytes()) == [finding]


def test_no_rule_applied_is_no_pass() -> None:
    assert guard.judge([], [])["passed"] is False


def test_the_order_of_findings_does_not_count() -> None:
    findings = [
        GuardFinding("b", 2, "r", "m", "f"),
        GuardFinding("a", 9, "r", "m", "f"),
        GuardFinding("a", 1, "r", "m", "f"),
    ]
    assert guard.judge(findings, ["r"]) == guard.judge(findings[::-1], ["r"])
