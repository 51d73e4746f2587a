from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, strategies as st
from onnx import TensorProto, helper, numpy_helper

from helixserve.errors import ContractError
from helixserve.runners.initializers import read
from tests.helixserve.support import tiny_graph
from tests.models.proteinmpnn.kernels import random_graphs


def _model(*tensors: TensorProto) -> bytes:
    graph = helper.make_graph([], "g", [], [], list(tensors))
    return helper.make_model(graph).SerializeToString()


def test_names_shapes_and_values_are_those_that_onnx_wrote() -> None:
    wanted = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(-3, dtype=np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "ü[0:128]": np.array([np.pi, -0.0, 1e-40], np.float32),
    }
    found = read(_model(*(numpy_helper.from_array(array, name) for name, array in wanted.items())), "g")
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_data_outside_the_graph_is_refused() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(ContractError, match="outside"):
        read(_model(tensor), "g")


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], raw_data=bytes(4)),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, -1], raw_data=bytes(8)),
        TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[1], raw_data=bytes(8)),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0]),
    ],
)
def test_a_tensor_that_is_not_its_shape_is_refused(tensor: TensorProto) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        read(_model(tensor), "g")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ContractError):
        read(data, "g")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, value: int) -> None:
    data = bytearray(tiny_graph())
    data[place % len(data)] = value
    with contextlib.suppress(ContractError):
        read(bytes(data), "g")


def test_a_cut_file_is_refused() -> None:
    with pytest.raises(ContractError, match="early"):
        read(random_graphs()["residue_tables"][:-1000], "g")
