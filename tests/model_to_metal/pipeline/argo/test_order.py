from __future__ import annotations

import pytest

from helix_lineage.formats.canonical import dumps
from helix_lineage.records.chain import DataCommit
from model_to_metal.errors import WorkflowError
from model_to_metal.pipeline.argo.order import Given, Order, StageOrder
from model_to_metal.pipeline.closure import Sources
from model_to_metal.pipeline.plan import StagePlan
from model_to_metal.stages.interface import StageSettings

ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "123")


def order(**changes: object) -> Order:
    plan = StageSettings({"model": "toy", "source": ONE}, "onnxruntime-cpu", "x86-64-v3")
    given = {"layout": Given(recipe=THREE), "downloads": Given(files={"a/b": TWO})}
    stage = StageOrder(plan, code=ONE, environment=TWO, inputs={"read": THREE}, sources=TWO, given=given)
    return Order("toy", True, {"build": stage}, {"serve": "/nix/store/x"}, (ONE,))


def test_an_order_is_read_as_it_was_written() -> None:
    assert Order.from_bytes(order().to_bytes()) == order()
    assert Order.from_bytes(order().to_bytes()).to_bytes() == order().to_bytes()


def test_it_names_every_blob_once() -> None:
    assert order().blobs() == [ONE, TWO, THREE]


def test_a_stage_has_the_key_that_the_local_engine_has() -> None:
    parents = {"model": DataCommit(parameters={"model": "toy", "dvc_lock": ONE, "files": []})}
    stage = order().stages["build"]
    local = StagePlan("build", stage.plan, stage.code, stage.environment, Sources({}), stage.inputs)
    assert stage.key("build", parents) == local.key(parents)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"version":2}', dumps({"version": 1}),
     order().to_bytes().replace(TWO.encode(), b"sha256:short"), order().to_bytes()[:-1]],
)  # fmt: skip
def test_what_is_no_order_is_refused(data: bytes) -> None:
    with pytest.raises(WorkflowError):
        Order.from_bytes(data)
