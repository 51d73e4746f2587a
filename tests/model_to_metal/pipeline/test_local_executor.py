"""How stages are made here. Every stage, made for real, is in tests/end_to_end."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_lineage.paths import State
from helix_lineage.records.chain import Artifact, DataCommit
from model_to_metal.errors import StageError
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline.engine import StageRun
from model_to_metal.pipeline.local_executor import LocalExecutor, compare_data
from model_to_metal.pipeline.plan import release_plan
from tests.model_to_metal.project import make_project

FILE = Artifact("weights/a", "sha256:" + "1" * 64, 1)
OTHER = Artifact("weights/b", "sha256:" + "2" * 64, 1)


def test_nix_may_derive_less_than_dvc_but_nothing_else() -> None:
    compare_data([FILE], [FILE, OTHER])
    for taken in (OTHER, Artifact(FILE.name, OTHER.digest, 1), Artifact(FILE.name, FILE.digest, 2)):
        with pytest.raises(StageError, match="not what DVC derived") as caught:
            compare_data([taken], [FILE])
        assert caught.value.where == f"data/{taken.name}"


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    return make_project(tmp_path / "checkout")


def stage_run(project: Checkout, scratch: Path, stage: str) -> StageRun:
    scratch.mkdir()
    plan = release_plan(project, "toy", [stage]).stages[stage]
    return StageRun(project, "toy", plan, parents={}, inputs={}, scratch=scratch, again=False)


def executor(tmp_path: Path) -> LocalExecutor:
    state = State(tmp_path / "state")
    state.downloads.mkdir(parents=True)
    return LocalExecutor(state, sign=lambda _stage_run, _record: pytest.fail("signed"), is_signed=lambda _record: False)


def test_the_data_stage_runs_the_real_dvc_in_a_sandbox(project: Checkout, tmp_path: Path) -> None:
    record, files = executor(tmp_path).make(stage_run(project, tmp_path / "job", "data"))
    assert isinstance(record, DataCommit)
    assert [output.name for output in record.outputs] == ["weights/factor.txt"]
    assert (files / "weights/factor.txt").read_text() == "2"


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        ("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)\n", r"refused|unreachable"),
        ("from pathlib import Path\nPath('src/toy_model/evaluate.py').read_text()\n", "No such file"),
    ],
    ids=["network", "a-source-that-its-key-does-not-cover"],
)
def test_the_sandbox_keeps_a_stage_from(project: Checkout, tmp_path: Path, attempt: str, said: str) -> None:
    path = project.root / "models/toy/src/toy_model/data.py"
    path.write_text(attempt + path.read_text())
    with pytest.raises(StageError, match=said):
        executor(tmp_path).make(stage_run(project, tmp_path / "job", "data"))


def test_a_release_is_complete_only_while_it_is_signed(project: Checkout, tmp_path: Path) -> None:
    data = DataCommit(parameters={"model": "toy", "dvc_lock": "sha256:" + "1" * 64, "files": []})
    made = executor(tmp_path)
    assert made.is_complete(stage_run(project, tmp_path / "data", "data"), data)
    assert not made.is_complete(stage_run(project, tmp_path / "attest", "attest"), data)
