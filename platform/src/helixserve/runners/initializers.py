"""The constants of an ONNX graph as arrays, read from its bytes without the onnx package.

The serve image has no onnx; all that is needed of the format is protobuf's framing and five
field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, and TensorProto's dims,
data_type, name and raw_data. Anything else is passed over; data outside the bytes is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from helixserve.errors import ContractError

_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW, _LOCATION = 1, 2, 8, 9, 14
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}


def read(data: bytes, where: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Name → constant, float32 and int64 alone. Raises ContractError for bytes that are no such graph.

    Args:
        data: a serialised ONNX model.
        where: the graph's name, for the error.
    """
    found = {}
    try:
        for graph in _messages(memoryview(data), _GRAPH):
            for tensor in _messages(graph, _INITIALIZER):
                name, array = _tensor(tensor)
                if name in found:
                    raise ValueError(f"{name} is there twice")
                found[name] = array
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ContractError(f"the graph's constants cannot be read: {error}", where=where) from error
    if not found:
        raise ContractError("the graph has no constants", where=where)
    return found


def _tensor(data: memoryview) -> tuple[str, np.ndarray[Any, np.dtype[Any]]]:
    dims: list[int] = []
    name, kind, raw = "", 0, memoryview(b"")
    for number, value in _fields(data):
        if number == _DIMS and isinstance(value, int):
            dims.append(value)
        elif number == _DIMS and isinstance(value, memoryview):  # packed
            dims.extend(_packed(value))
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == _RAW and isinstance(value, memoryview):
            raw = value
        elif number == _LOCATION and value != 0:
            raise ValueError(f"{name} lies outside the graph")
    if kind not in _TYPES:
        raise ValueError(f"{name} has data type {kind}")
    array = np.frombuffer(raw, dtype=_TYPES[kind])
    if any(extent < 0 for extent in dims):
        raise ValueError(f"{name} has a negative extent")
    return name, array.reshape(dims)


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value: an integer, or the bytes of a text, message or packed list."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("the data ends early")
        yield number, data[at : at + size]
        at += size


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than 64 bits")
