from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from helix_lineage.formats.typed import ITEM_BYTES, Tensor
from helixserve.endpoints import open_inference as protocol
from helixserve.errors import InvalidInputError, NotFoundError, TooLargeError
from helixserve.model.contract import Contract


@st.composite
def any_tensor(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from([*sorted(ITEM_BYTES), "BYTES"]))
    shape = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    count = 1
    for extent in shape:
        count *= extent
    if datatype == "BYTES":
        return Tensor("x", datatype, shape, tuple(draw(st.lists(st.binary(), min_size=count, max_size=count))))
    size = count * ITEM_BYTES[datatype]
    data = draw(st.binary(min_size=size, max_size=size))
    return Tensor("x", datatype, shape, bytes(byte & 1 for byte in data) if datatype == "BOOL" else data)


@given(any_tensor())
def test_raw_bytes_hold_every_tensor(tensor: Tensor) -> None:
    assert protocol.from_raw("x", tensor.datatype, tensor.shape, protocol.to_raw(tensor)) == tensor


@given(
    st.sampled_from([*sorted(ITEM_BYTES), "BYTES"]), st.lists(st.integers(-1, 5), max_size=3), st.binary(max_size=64)
)
def test_raw_bytes_of_strangers_give_a_tensor_or_a_typed_error(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        tensor = protocol.from_raw("x", datatype, shape, raw)
    except InvalidInputError as error:
        assert error.where == "x"
    else:
        assert protocol.to_raw(tensor) == raw


@pytest.mark.parametrize("shape", [[2**31], [-1], [True], ["1"], [2**31 - 1, 2**31 - 1]])
def test_an_absurd_shape_is_refused_without_making_room_for_it(shape: list[object]) -> None:
    with pytest.raises(InvalidInputError):
        protocol.from_elements("x", "FP32", shape, [1.0])  # type: ignore[arg-type]
    with pytest.raises((InvalidInputError, TooLargeError)):
        protocol.from_raw("x", "BYTES", shape, b"\0\0\0\0")  # type: ignore[arg-type]


def test_a_bool_is_one_of_two_bytes() -> None:
    with pytest.raises(InvalidInputError, match="0 or 1"):
        protocol.from_raw("x", "BOOL", [1], b"\2")


def test_tasks_are_found_by_protocol_name_and_version(contract: Contract) -> None:
    for version in ("", "3"):
        assert protocol.find_task(contract, "tiny-measure", version).name == "measure"
    for model, version in (("tiny", ""), ("measure", ""), ("tiny-measure", "1")):
        with pytest.raises(NotFoundError):
            protocol.find_task(contract, model, version)


def test_outputs_are_counted_by_item_and_prediction_ids_always_come(contract: Contract) -> None:
    task = contract.task("project")
    assert {m.name: m.shape for m in protocol.outputs_of(task)}["table"] == (-1, -1, 3)
    assert protocol.wanted_outputs(task, ["label"]) == ["label", "prediction_id"]
    assert protocol.wanted_outputs(task, []) == [*task.outputs, "prediction_id"]
    with pytest.raises(InvalidInputError):
        protocol.wanted_outputs(task, ["unheard"])
