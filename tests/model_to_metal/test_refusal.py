"""A refusal lists what failed, with value and limit, whichever command was refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.paths import State
from model_to_metal.cli import main
from model_to_metal.host.checkout import Checkout
from model_to_metal.local import demo
from model_to_metal.local.workspace import Workspace
from model_to_metal.pipeline.engine import Engine
from model_to_metal.refusal import failures, line, rows
from tests.commands import exit_status
from tests.model_to_metal.project import Bench, make_cache_signer, make_project

FINDING = {"rule": "contract", "file": "dvc.lock", "line": 0, "message": "missing", "fix": "add it"}
GOOD = {"case": "1ubi", "metric": "deviation", "value": 4.1e-05, "allowed": 1e-4, "passed": True}
FAR = {"case": "2beg", "metric": "deviation", "value": 0.00031, "allowed": 1e-4, "passed": False}
NAN = {"case": "1ake", "metric": "deviation", "value": "float:nan", "allowed": 1e-4, "passed": False}
NOISE = {"case": "1ubi in float32", "metric": "deviation", "value": 0.00011}
REFUSAL = {"passed": False, "cases": [GOOD, FAR, NAN], "reported": [NOISE]}
LISTED = ["FAIL 2beg: deviation is 0.00031, allowed 0.0001", "FAIL 1ake: deviation is float:nan, allowed 0.0001"]


def test_findings_name_file_line_and_fix() -> None:
    placed = {"rule": "no-pickle", "file": "a.py", "line": 3, "message": "imports pickle", "fix": "safetensors"}
    assert [line(row) for row in failures({"passed": False, "findings": [placed, FINDING]})] == [
        "no-pickle  a.py:3  imports pickle; fix: safetensors",
        "contract  dvc.lock  missing; fix: add it",
    ]


def test_only_what_failed_is_a_failure_and_everything_can_be_listed() -> None:
    assert [line(row) for row in failures(REFUSAL)] == LISTED
    assert rows(REFUSAL) == [FAR, NAN, GOOD, NOISE]
    assert line(NOISE) == "info 1ubi in float32: deviation is 0.00011, reported only"
    assert failures({"passed": True, "findings": [FINDING]}) == []


@pytest.mark.parametrize("verdict", [{"passed": False}, {"passed": False, "cases": [], "reported": [NOISE]}, {}])
def test_a_refusal_without_evidence_lists_that(verdict: Mapping[str, Any]) -> None:
    (row,) = failures(verdict)
    assert line(row) == "FAIL no evidence: number of judged cases is 0, allowed at least 1"


def test_verdicts_of_earlier_releases_are_still_listed() -> None:
    assert rows({"passed": False, "cases": [GOOD, FAR]}) == [FAR, GOOD]


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_project(tmp_path_factory.mktemp("project") / "checkout")


@pytest.fixture
def command(
    project: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`helix …` in this process, on stages that are made without Nix, whose regression gate refuses."""
    bench = Bench(found={"regress": REFUSAL})
    state, cache_signer = State(tmp_path / "state"), make_cache_signer(tmp_path / "keys")
    monkeypatch.setattr(
        Workspace, "engine", lambda *_arguments: Engine(project, state, bench, cache_signer=cache_signer)
    )
    monkeypatch.setattr(Workspace, "find", staticmethod(lambda: Workspace(project, state)))
    monkeypatch.setattr(demo, "prepare", lambda *_arguments: project)
    monkeypatch.setattr(demo, "MODEL", "toy")
    monkeypatch.chdir(project.root)

    def run(*arguments: str) -> tuple[int, str, str]:
        return exit_status(main.main, "helix", *arguments), *capsys.readouterr()

    return run


REFUSED = [("regress", "toy"), ("run", "release", "toy"), ("demo",)]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_every_command_that_the_gate_refuses_lists_each_failed_case(
    arguments: tuple[str, ...], command: Command
) -> None:
    status, out, err = command(*arguments)
    assert status == main.NO
    assert [row for row in out.splitlines() if row.startswith("FAIL")] == LISTED
    assert "the regression gate refused toy; failed cases: 2" in err
    assert "fix:   mend what is listed, then: helix regress toy" in err


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_with_json_each_failed_case_is_an_object_and_the_record_is_there(
    arguments: tuple[str, ...], command: Command
) -> None:
    status, out, _ = command(*arguments, "--json")
    answer = json.loads(out)
    assert status == main.NO
    assert (answer["passed"], answer["model"]) == (False, "toy")
    assert answer["failed"] == [FAR, NAN]
    assert answer["record"]["parameters"]["cases"] == [GOOD, FAR, NAN]
    assert set(answer["error"]) == {"what", "where", "fix"}


def test_a_gate_that_passes_lists_its_cases_and_what_it_reports(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REFUSAL, "passed", True)
    monkeypatch.setitem(REFUSAL, "cases", [GOOD])
    status, out, _ = command("regress", "toy")
    assert status == 0
    assert out.splitlines()[-2:] == [
        "ok   1ubi: deviation is 4.1e-05, allowed 0.0001",
        "info 1ubi in float32: deviation is 0.00011, reported only",
    ]
