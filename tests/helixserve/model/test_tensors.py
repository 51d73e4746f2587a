from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from helix_lineage.formats.typed import Tensor
from helixserve.errors import InvalidInputError
from helixserve.model import tensors

NUMERIC = st.sampled_from(sorted(tensors.DTYPES))
SHAPES = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    dtype = tensors.DTYPES[draw(NUMERIC)]
    elements = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return draw(npst.arrays(dtype, draw(SHAPES), elements=elements))


@given(arrays())
def test_arrays_survive_the_way_to_a_tensor_and_back(array: Any) -> None:
    tensor = tensors.from_array("x", array)
    back = tensors.to_array(tensor)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(arrays())
def test_big_endian_arrays_give_the_same_tensor(array: Any) -> None:
    assert tensors.from_array("x", array.astype(array.dtype.newbyteorder(">"))) == tensors.from_array("x", array)


@given(arrays())
def test_plain_values_hold_every_number_exactly(array: Any) -> None:
    tensor = tensors.from_array("x", array)
    flat = Tensor("x", tensor.datatype, (array.size,), tensor.data)
    assert tensors.from_value("x", tensor.datatype, tensors.unpack(flat)) == flat
    if array.size:
        assert tensors.from_value("x", tensor.datatype, tensors.to_value(tensor), rank=array.ndim) == tensor


@given(st.lists(st.text()))
def test_texts_survive(words: list[str]) -> None:
    assert tensors.texts(tensors.from_texts("x", words)) == words


@given(st.integers(), NUMERIC.filter(lambda name: "INT" in name))
def test_an_integer_is_kept_exactly_or_refused(number: int, datatype: str) -> None:
    limits = np.iinfo(tensors.DTYPES[datatype])
    if limits.min <= number <= limits.max:
        assert tensors.scalar(tensors.from_value("x", datatype, number)) == number
    else:
        with pytest.raises(InvalidInputError, match="does not fit"):
            tensors.from_value("x", datatype, number)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT64", 1.0), ("INT64", True), ("INT64", "1"), ("INT64", None), ("FP32", "1"), ("FP32", True), ("FP32", 1e39),
        ("FP16", 70000), ("FP64", 10**400), ("BOOL", 1), ("BYTES", 1), ("BYTES", "\ud800"), ("BYTES", {}), ("BF16", 1),
        ("FP64", [[1.0]]), ("INT64", {"a": 1}),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused(datatype: str, value: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        tensors.from_value("x", datatype, value)
    assert caught.value.where == "x"


@pytest.mark.parametrize("value", [[1, 2], [[1], [1, 2]], [[1], 2], 3, [[[1]]]])
def test_ragged_or_wrongly_nested_lists_are_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        tensors.from_value("x", "INT64", value, rank=2)


def test_a_whole_number_may_stand_for_a_float() -> None:
    assert tensors.scalar(tensors.from_value("x", "FP64", 3)) == 3.0
    assert math.copysign(1, float(tensors.scalar(tensors.from_value("x", "FP32", -0.0)))) == -1


def test_scalar_refuses_several_elements() -> None:
    with pytest.raises(InvalidInputError, match="exactly one"):
        tensors.scalar(tensors.from_value("x", "INT64", [1, 2]))


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="UTF-8"):
        tensors.texts(tensors.from_texts("x", [b"\xff"]))


def test_lists_nested_beyond_reason_are_flattened() -> None:
    nested: object = 1
    for _ in range(100_000):
        nested = [nested]
    assert tensors.flatten(nested) == [1]
    assert tensors.flatten([[1, 2], [], [3]]) == [1, 2, 3]


def test_a_list_of_one_is_a_list_where_the_contract_has_one() -> None:
    one = tensors.from_value("x", "INT64", [7])
    assert (tensors.to_value(one), tensors.to_value(one, (1,)), tensors.to_value(one, (-1,))) == (7, 7, [7])
