from __future__ import annotations

import pytest

from helix_lineage.records import DataCommit, GuardVerdict, RegressionVerdict
from model_to_metal.engine import Outcome
from model_to_metal.report import Lines, stage_line, verdict_lines

DIGEST = "sha256:" + "1" * 64


def test_a_stage_is_one_line_with_its_status_and_time() -> None:
    record = DataCommit(parameters={"model": "toy", "dvc_lock": DIGEST, "files": []})
    made = stage_line(Outcome("data", record, remade=True, time="2026-01-01T00:00:00Z", seconds=6.25))
    found = stage_line(Outcome("data", record, remade=False, time="2026-01-01T00:00:00Z", seconds=0.0))
    assert "remade" in made
    assert "6.2 s" in made
    assert record.digest[:19] in made
    assert "recorded 2026-01-01T00:00:00Z" in found


@pytest.mark.parametrize(("passed", "word"), [(True, "passed"), (False, "REFUSED")])
def test_a_gates_line_says_its_verdict(passed: bool, word: str) -> None:
    parameters = {"model": "toy", "source": DIGEST, "locks": {}, "passed": passed, "findings": []}
    lines: list[str] = []
    watcher = Lines(lines.append)
    watcher.started("guard")
    watcher.done(Outcome("guard", GuardVerdict(parameters=parameters), remade=True, time="", seconds=1.0))
    (line,) = lines
    assert line.endswith(word)


def test_findings_name_file_line_and_fix() -> None:
    findings = [
        {"rule": "no-pickle", "file": "a.py", "line": 3, "message": "imports pickle", "fix": "safetensors"},
        {"rule": "contract", "file": "dvc.lock", "line": 0, "message": "missing", "fix": "add it"},
    ]
    parameters = {"model": "toy", "source": DIGEST, "locks": {}, "passed": False, "findings": findings}
    assert verdict_lines(GuardVerdict(parameters=parameters)) == [
        "no-pickle  a.py:3  imports pickle; fix: safetensors",
        "contract  dvc.lock  missing; fix: add it",
    ]


def test_cases_say_which_failed() -> None:
    cases = [
        {"case": "1ubi", "metric": "m", "value": 1, "allowed": 2, "passed": True},
        {"case": "1ake", "metric": "m", "value": "float:nan", "allowed": 2, "passed": False},
    ]
    parents = {"candidate": DIGEST, "weights": DIGEST, "data": DIGEST}
    parameters = {"model": "toy", "source": DIGEST, "environment": DIGEST, "passed": False, "cases": cases}
    lines = verdict_lines(RegressionVerdict(parents=parents, parameters=parameters))
    assert [line[:4] for line in lines] == ["ok  ", "FAIL"]
