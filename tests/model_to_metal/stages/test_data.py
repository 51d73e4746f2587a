"""The real DVC, on a small model whose data is one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.errors import StageError
from model_to_metal.stages import data
from model_to_metal.stages.interface import StageResult, StageSettings, StageTask, artifacts, record as record_of
from tests.model_to_metal.project import write_toy


@pytest.fixture
def task(tmp_path: Path) -> StageTask:
    for name in ("output", "downloads"):
        (tmp_path / name).mkdir()
    inputs = {"downloads": tmp_path / "downloads"}
    return StageTask(model=write_toy(tmp_path / "toy"), output=tmp_path / "output", inputs=inputs)


def test_the_data_is_derived_again_and_named_by_both_hashes(task: StageTask) -> None:
    found = data.make(task)
    assert (task.output / "weights/factor.txt").read_text() == "2"
    assert found["files"] == [{"path": "weights/factor.txt", "md5": "c81e728d9d4c2f636f067f89cc14862c"}]
    record = record_of(
        data.SPEC, StageResult(plan=StageSettings({"model": "toy"}), found=found, outputs=artifacts(task.output))
    )
    assert [output.name for output in record.outputs] == ["weights/factor.txt"]
    assert not (task.model / "data/weights").exists(), "the source stays as it was"


def test_other_data_than_the_lock_names_is_refused(task: StageTask) -> None:
    path = task.model / "dvc.lock"
    rest, outs = path.read_text().split("outs:")
    path.write_text(rest + "outs:" + outs.replace("md5: ", "md5: 0", 1))
    with pytest.raises(StageError, match=r"re-derived, data/weights has MD5"):
        data.make(task)


def test_a_lock_out_of_step_with_the_code_names_the_command(task: StageTask) -> None:
    path = task.model / "src/toy_model/data.py"
    path.write_text(path.read_text() + "\n# changed\n")
    with pytest.raises(StageError, match="out of step") as caught:
        data.make(task)
    assert caught.value.fix == "dvc repro models/toy/dvc.yaml"


def test_without_a_lock_the_command_is_named(task: StageTask) -> None:
    (task.model / "dvc.lock").unlink()
    with pytest.raises(StageError, match="not locked") as caught:
        data.make(task)
    assert caught.value.fix == "dvc repro models/toy/dvc.yaml"


def test_a_failing_derivation_says_why(task: StageTask) -> None:
    path = task.model / "dvc.yaml"
    path.write_text(path.read_text().replace("toy_model.data", "toy_model.dada"))
    with pytest.raises(StageError, match=r"toy_model\.dada"):
        data.make(task)
