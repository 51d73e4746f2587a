from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helix_lineage.formats.canonical import dumps, file_digest
from helix_lineage.records.chain import RECORD_TYPES, DataCommit, Record, RegressionVerdict, TrainedWeights, parse
from model_to_metal.errors import ContractError, StageError
from model_to_metal.stages import interface
from model_to_metal.stages.arguments import pair
from tests.model_to_metal.project import ROOT, write_toy

DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "factor.txt").write_text("2")
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, as a derivation, a sandbox and a pod start it."""
    argv = [sys.executable, "-P", "-m", "model_to_metal.stages", *map(str, arguments)]
    env = {"PYTHONPATH": f"{ROOT}/lineage/src:{ROOT}/platform/src", "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_as_a_derivation_it_takes_folders_and_gives_files(toy: Path, data: Path, tmp_path: Path) -> None:
    done = run("import", "--model", toy, "--input", f"data={data}", "--output", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["factor.safetensors"]


def test_in_a_sandbox_it_also_takes_records_and_gives_one(toy: Path, data: Path, tmp_path: Path) -> None:
    parent = DataCommit(parameters={"model": "toy", "dvc_lock": DIGEST, "files": []})
    (tmp_path / "data.json").write_bytes(parent.to_bytes())
    plan = {"parameters": {"model": "toy", "source": DIGEST, "environment": DIGEST}, "target": None}
    (tmp_path / "plan.json").write_bytes(dumps(plan))
    done = run(
        "import", "--model", toy, "--input", f"data={data}", "--parent", f"data={tmp_path}/data.json",
        "--plan", tmp_path / "plan.json", "--output", tmp_path / "out", "--record", tmp_path / "record.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = parse((tmp_path / "record.json").read_bytes())
    assert isinstance(record, TrainedWeights)
    assert record.parents == {"data": parent.digest}
    assert record.output("factor.safetensors").size == 1


def regress(toy: Path, data: Path, tmp_path: Path, factor: str) -> tuple[subprocess.CompletedProcess[str], Record]:
    parents = []
    for role in ("candidate", "weights", "data"):
        folder = data if role == "data" else tmp_path / role
        folder.mkdir(exist_ok=True)
        (folder / "factor.txt").write_text(factor)
        record = DataCommit(parameters={"model": role, "dvc_lock": DIGEST, "files": []})
        (tmp_path / f"{role}.json").write_bytes(record.to_bytes())
        parents += ["--input", f"{role}={folder}", "--parent", f"{role}={tmp_path}/{role}.json"]
    plan = {"parameters": {"model": "toy", "source": DIGEST, "environment": DIGEST}, "machine_class": "x86-64-v3"}
    (tmp_path / "plan.json").write_bytes(dumps(plan))
    done = run(
        "regress", "--model", toy, *parents, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out",
        "--record", tmp_path / "record.json",
    )  # fmt: skip
    return done, parse((tmp_path / "record.json").read_bytes())


def test_a_gate_that_says_yes_ends_with_0(toy: Path, data: Path, tmp_path: Path) -> None:
    done, record = regress(toy, data, tmp_path, "2.0")
    assert done.returncode == 0
    assert isinstance(record, RegressionVerdict)
    assert record.parameters["passed"] is True
    assert record.machine_class == "x86-64-v3"


def test_a_gate_that_says_no_ends_with_3_and_its_verdict_is_written(toy: Path, data: Path, tmp_path: Path) -> None:
    done, record = regress(toy, data, tmp_path, "nan")
    assert done.returncode == interface.EXIT_REFUSED
    assert "stage regress: FAIL toy: factor is float:nan, allowed 2.0" in done.stderr
    assert record.parameters["passed"] is False
    assert record.parameters["cases"][0]["value"] == "float:nan"


def test_an_output_folder_with_something_in_it_is_refused(toy: Path, data: Path) -> None:
    done = run("import", "--model", toy, "--input", f"data={data}", "--output", data)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_input_is_named(toy: Path, tmp_path: Path) -> None:
    done = run("import", "--model", toy, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "--input data=FOLDER" in done.stderr


def test_a_hook_that_writes_nothing_is_refused(toy: Path, data: Path, tmp_path: Path) -> None:
    (toy / "src/toy_model/weights.py").write_text("def import_weights(data, output):\n    pass\n")
    done = run("import", "--model", toy, "--input", f"data={data}", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "wrote no .safetensors" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [stages] export"),
        ("[stages]\nexport = 3", "cannot be imported"),
        ("[stages]\nexport = 'a_module_that_is_not_there:f'", "a_module_that_is_not_there"),
        ("[stages", "cannot be read"),
    ],
)
def test_a_hook_that_cannot_be_found_says_where_it_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(ContractError) as caught:
        interface.hook(tmp_path, "export")
    assert said in str(caught.value)
    assert caught.value.where == str(tmp_path / "model.toml")


def test_links_and_devices_are_no_artifacts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(StageError, match="plain files"):
        interface.artifacts(tmp_path)


def test_artifacts_are_named_relative_to_the_folder_and_sorted(tmp_path: Path) -> None:
    for name in ("b/x", "a", "b/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = interface.artifacts(tmp_path)
    assert [artifact.name for artifact in found] == ["a", "b/a", "b/x"]
    assert found[0].digest == file_digest(tmp_path / "a")


def test_every_stage_has_a_module_that_makes_it_and_a_record() -> None:
    for name in interface.stages():
        assert callable(interface.load(name).make)
        assert interface.spec(name).name == name
        assert interface.spec(name).record in RECORD_TYPES.values()


def test_an_unknown_stage_is_refused_with_those_there_are() -> None:
    with pytest.raises(StageError, match="attest, build, compile, data, export, guard, import, regress"):
        interface.load("promote")


@pytest.mark.parametrize("text", ["", "data", "=x", "data="])
def test_a_pair_needs_both_sides(text: str) -> None:
    with pytest.raises(StageError):
        pair(text)
