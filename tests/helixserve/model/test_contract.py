from __future__ import annotations

import pytest

from helix_lineage.formats.typed import Tensor
from helixserve.errors import ContractError, InvalidInputError
from helixserve.model import tensors
from helixserve.model.contract import Contract, load_class
from tests.helixserve.support import TINY

TEXT = (TINY / "model.toml").read_text()


def values(*numbers: float) -> Tensor:
    return tensors.from_value("values", "FP32", list(numbers))


def no_draw() -> int:
    raise AssertionError("a seed was drawn")


def test_contract_names_tasks_tensors_and_limits(contract: Contract) -> None:
    assert (contract.name, contract.version, contract.runner, contract.lane) == ("tiny", "3", "onnxruntime", "strict")
    assert list(contract.tasks) == ["project", "measure"]
    field = contract.task("project").inputs["scale"]
    assert (field.datatype, field.shape, field.minimum, field.maximum) == ("FP64", (1,), 0.0, 10.0)
    assert field.default == tensors.from_value("scale", "FP64", 1.0)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("format = 1", "format = 2", "format"),
        ('name = "tiny"', "name = 7", "name"),
        ('lane = "strict"', 'lane = "fast"', "lane"),
        ("request_bytes = 20000", "request_bytes = 0", "limits"),
        ("request_bytes = 20000", "", "limits"),
        ('artifacts = ["tiny.onnx"]', "artifacts = []", "artifacts"),
        ('values = { datatype = "FP32"', 'values = { datatype = "FLOAT"', "inputs.values"),
        ('values = { datatype = "FP32", shape = [-1]', 'values = { datatype = "FP32", shape = [-2]', "inputs.values"),
        ('values = { datatype = "FP32"', 'values = { typo = 1, datatype = "FP32"', "inputs.values"),
        ("default = 1, minimum = 1", "default = 0, minimum = 1", "inputs.repeats"),
        ('seed = { datatype = "UINT64"', 'seed = { datatype = "INT64"', "inputs.seed"),
        ("outputs.length", "outputs.prediction_id", "tasks.measure"),
        ("[tasks.project]", "[tasks.project", "model.toml"),
    ],
)
def test_a_malformed_contract_is_refused_naming_the_key(old: str, new: str, named: str) -> None:
    assert old in TEXT
    with pytest.raises(ContractError) as caught:
        Contract.parse(TEXT.replace(old, new, 1))
    assert named in str(caught.value)


def test_resolve_fills_in_defaults_the_task_and_a_drawn_seed(contract: Contract) -> None:
    resolved = contract.task("project").resolve([values(1, 2)], lambda: 41)
    assert tensors.scalar(resolved["seed"]) == 41
    assert tensors.scalar(resolved["task"]) == "project"
    assert tensors.scalar(resolved["scale"]) == 1.0
    assert resolved["words"].shape == (0,)
    assert "pairs" not in resolved


def test_seed_zero_is_a_seed(contract: Contract) -> None:
    given = [values(1), tensors.from_value("seed", "UINT64", 0)]
    assert tensors.scalar(contract.task("project").resolve(given, no_draw)["seed"]) == 0


def test_resolving_a_resolved_input_changes_nothing(contract: Contract) -> None:
    task = contract.task("project")
    once = task.resolve([values(1, 2)], lambda: 5)
    again = task.resolve([tensor for name, tensor in once.items() if name != "task"], no_draw)
    assert again == once


def test_a_task_without_a_seed_draws_none(contract: Contract) -> None:
    assert "seed" not in contract.task("measure").resolve([tensors.from_texts("text", ["a"])], no_draw)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ([], "values"),
        ([values(1), values(2)], "values"),
        ([Tensor("values", "FP64", (1,), bytes(8))], "values"),
        ([Tensor("values", "FP32", (1, 1), bytes(4))], "values"),
        ([values(1), tensors.from_value("repeats", "INT64", [1, 2])], "repeats"),
        ([values(1), tensors.from_value("repeats", "INT64", 51)], "repeats"),
        ([values(1), Tensor("scale", "FP64", (1,), b"\0\0\0\0\0\0\xf8\x7f")], "scale"),
        ([values(1), tensors.from_texts("task", ["measure"])], "task"),
        ([values(1), tensors.from_texts("unheard", ["of"])], "unheard"),
    ],
    ids=["missing", "twice", "type", "rank", "extent", "range", "nan", "task", "unknown"],
)
def test_a_request_that_breaks_the_contract_is_refused_naming_the_field(
    contract: Contract, given: list[Tensor], where: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        contract.task("project").resolve(given, lambda: 0)
    assert caught.value.where == where


@pytest.mark.parametrize(
    "model", ["tiny_model.model:Missing", "nowhere:Tiny", "tiny_model.model", "tiny_model.model:np"]
)
def test_a_model_that_is_no_model_is_refused(model: str) -> None:
    with pytest.raises(ContractError):
        load_class(Contract.parse(TEXT.replace("tiny_model.model:Tiny", model)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_whether_a_range_is_named_or_not(number: float) -> None:
    for field in ("values = { datatype", "unlimited = { datatype"):
        contract = Contract.parse(
            TEXT.replace("inputs.values = { datatype", f"inputs.{field}").replace(", minimum = -1e6, maximum = 1e6", "")
        )
        name = field.split()[0]
        wanted = contract.task("project").inputs[name]
        wanted.check(tensors.from_value(name, "FP32", [3e38]))
        with pytest.raises(InvalidInputError, match="NaN or an infinite number"):
            wanted.check(tensors.from_value(name, "FP32", [1.0, number]))
