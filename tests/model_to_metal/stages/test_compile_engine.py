from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helix_lineage.records.chain import CompiledEngine
from model_to_metal.errors import ContractError, StageError
from model_to_metal.stages import compile_engine
from model_to_metal.stages.interface import StageResult, StageSettings, StageTask, artifacts, record as record_of
from tests.model_to_metal.project import write_toy

DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def task(tmp_path: Path) -> StageTask:
    exported, output = tmp_path / "exported", tmp_path / "output"
    (exported / "tables").mkdir(parents=True)
    output.mkdir()
    (exported / "graph.onnx").write_bytes(b"graph")
    (exported / "tables" / "residues.onnx").write_bytes(b"table")
    return StageTask(model=write_toy(tmp_path / "toy"), output=output, inputs={"exported": exported})


def _native(task: StageTask, kernels: bytes | None) -> StageTask:
    path = task.model / "model.toml"
    path.write_text(path.read_text().replace('"onnxruntime-cpu"', '"native-cpu"'))
    if kernels is None:
        return task
    folder = task.output.parent / "kernels"
    folder.mkdir()
    (folder / "kernels-v3.so").write_bytes(kernels)
    return replace(task, inputs={**task.inputs, "kernels": folder})


def test_onnxruntime_is_given_the_exported_graphs(task: StageTask) -> None:
    assert compile_engine.make(task) == {}
    assert artifacts(task.output) == artifacts(task.input("exported"))


def test_the_native_target_has_the_kernels_beside_the_graphs(task: StageTask) -> None:
    native = _native(task, b"kernels")
    compile_engine.make(native)
    made = artifacts(native.output)
    assert set(made) == {*artifacts(native.input("exported")), *artifacts(native.input("kernels"))}
    plan = StageSettings({"model": "toy", "source": DIGEST, "environment": DIGEST}, "native-cpu")
    record = record_of(compile_engine.SPEC, StageResult(plan=plan, outputs=made, parents={"exported": _parent()}))
    assert isinstance(record, CompiledEngine)
    assert (record.target, record.machine_class, record.outputs) == ("native-cpu", None, made)


def test_without_the_kernels_there_is_no_native_engine(task: StageTask) -> None:
    with pytest.raises(StageError, match="kernels"):
        compile_engine.make(_native(task, None))


def test_an_input_that_is_empty_or_hides_another_is_refused(task: StageTask) -> None:
    native = _native(task, b"kernels")
    (native.input("kernels") / "graph.onnx").write_bytes(b"another graph")
    with pytest.raises(StageError, match="that another one has"):
        compile_engine.make(native)
    empty = task.output.parent / "empty"
    empty.mkdir()
    with pytest.raises(StageError, match="holds no files"):
        compile_engine.make(replace(task, inputs={"exported": empty}))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"onnxruntime-cpu"', '"abacus"', "no target is called 'abacus'"),
        ('"onnxruntime-cpu"', "[1]", "no target"),
        ("[target]", "[targets]", r"no \[target\] name"),
    ],
    ids=["unknown", "no-text", "none"],
)
def test_a_contract_without_a_target_that_we_know_is_refused(task: StageTask, old: str, new: str, said: str) -> None:
    path = task.model / "model.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ContractError, match=said):
        compile_engine.make(task)


def test_a_plan_for_another_target_is_refused(task: StageTask) -> None:
    with pytest.raises(StageError, match=r"'native-cpu', model\.toml's is 'onnxruntime-cpu'"):
        compile_engine.make(replace(task, plan=StageSettings(target="native-cpu")))


def _parent() -> CompiledEngine:
    return CompiledEngine(parents={"exported": DIGEST}, parameters={"model": "t", "source": "s", "environment": "e"})
