"""A stage is one file and one line of the workflow: here one is added to a copy of the sources, and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_to_metal.host.checkout import Checkout
from tests.model_to_metal.project import ROOT, commit, make_project

STAGE = '''
"""Screen: is the engine small enough for the smallest machine? Engine → `RegressionVerdict`."""

from helix_lineage.records.chain import RegressionVerdict
from model_to_metal.stages.interface import Gate, Runs, StageSpec

SPEC = StageSpec(
    name="screen",
    record=RegressionVerdict,
    runs=Runs.HOST,
    environment="host",
    reads=("model.toml",),
    keeps_files=False,
    gate=Gate("size gate", "helix run release", "failed cases"),
)


def make(task):
    """Add up the bytes of the engine's files."""
    size = sum(path.stat().st_size for path in task.input("candidate").iterdir())
    case = {"case": "size", "metric": "bytes", "value": size, "allowed": LIMIT, "passed": size <= LIMIT}
    return {"passed": case["passed"], "cases": [case], "reported": []}
'''
STEP = 'Step("screen", parents=(("candidate", "compile"), ("weights", "import"), ("data", "data"))),'

RUN = """
import json, sys
from pathlib import Path
from helix_lineage.paths import State
from model_to_metal.errors import GateRefused
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline.engine import Engine
from model_to_metal.pipeline.local_executor import LocalExecutor
from model_to_metal.workflows.release import rendered
from tests.model_to_metal.project import Bench

class Mixed(Bench):
    # The new stage by the executor that is there already; the others as all tests of the engine make them.
    def make(self, job):
        if job.plan.stage == "screen":
            return LocalExecutor(state, sign=lambda *_: None, is_signed=lambda _: True).make(job)
        return super().make(job)

root, state = Path(sys.argv[1]), State(Path(sys.argv[2]))
try:
    outcomes = Engine(Checkout(root), state, Mixed()).run("toy")
except GateRefused as error:
    print(json.dumps({"refused": str(error), "failed": list(error.failed)}))
else:
    print(json.dumps({"order": list(outcomes), "verdict": outcomes["screen"].record.to_json()}))
assert "name: screen" in rendered()[1]
"""


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    made = make_project(tmp_path / "checkout")
    workflow = made.root / "platform/src/model_to_metal/workflows/release.py"
    text = workflow.read_text()
    before = '    Step("build",'
    assert text.count(before) == 1
    workflow.write_text(text.replace(before, f"    {STEP}\n{before}"))
    return made


def run(project: Checkout, limit: int, state: Path) -> dict[str, object]:
    stage = project.root / "platform/src/model_to_metal/stages/screen.py"
    stage.write_text(STAGE.replace("LIMIT", str(limit)))
    commit(project.root, "a stage more")
    paths = [project.root / "lineage/src", project.root / "platform/src", ROOT]
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(project.root), str(state)],
        env={**os.environ, "PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_stage_is_one_file_and_one_line_of_the_workflow(project: Checkout, tmp_path: Path) -> None:
    found = run(project, 1000, tmp_path / "state")
    assert found["order"] == ["data", "import", "export", "compile", "guard", "regress", "screen", "build", "attest"]
    verdict = found["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["parameters"]["passed"] is True
    assert sorted(verdict["parents"]) == ["candidate", "data", "weights"]


def test_its_no_is_said_like_that_of_the_other_gates(project: Checkout, tmp_path: Path) -> None:
    found = run(project, 1, tmp_path / "state")
    assert "the size gate refused toy; failed cases: 1" in str(found["refused"])
    assert "then: helix run release toy" in str(found["refused"])
    (failed,) = found["failed"]  # type: ignore[misc]
    assert (failed["case"], failed["limit"] if "limit" in failed else failed["allowed"]) == ("size", 1)
