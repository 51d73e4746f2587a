from __future__ import annotations

import contextlib
import math
from typing import Any

import cbor2
import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.typed import ITEM_BYTES, Tensor, decode, encode

_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
_shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype, shape = draw(st.sampled_from([*ITEM_BYTES, "BYTES"])), draw(_shapes)
    elements = math.prod(shape)
    if datatype == "BYTES":
        data: Any = tuple(draw(st.lists(st.binary(max_size=5), min_size=elements, max_size=elements)))
    elif datatype == "BOOL":
        data = bytes(draw(st.lists(st.integers(0, 1), min_size=elements, max_size=elements)))
    else:
        size = elements * ITEM_BYTES[datatype]
        data = draw(st.binary(min_size=size, max_size=size))
    return Tensor(draw(_names), datatype, shape, data)


values = st.lists(tensors(), max_size=4, unique_by=lambda tensor: tensor.name)


@given(values)
def test_decoding_gives_back_what_was_encoded(value: list[Tensor]) -> None:
    assert list(decode(encode(value))) == sorted(value, key=lambda tensor: tensor.name)


@given(values, st.randoms())
def test_the_order_of_tensors_does_not_matter(value: list[Tensor], random: Any) -> None:
    shuffled = list(value)
    random.shuffle(shuffled)
    assert encode(shuffled) == encode(value)


@given(values)
def test_the_bytes_are_deterministic_cbor(value: list[Tensor]) -> None:
    # RFC 8949, 4.2.1: shortest heads, definite lengths; no maps, floats or tags occur.
    data = encode(value)
    rows = [[t.name, t.datatype, list(t.shape), list(t.data) if t.datatype == "BYTES" else t.data]
            for t in sorted(value, key=lambda t: t.name)]  # fmt: skip
    assert data == _cbor(rows)


@given(values, st.data())
def test_no_other_bytes_decode_to_the_same_value(value: list[Tensor], data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(encoded))
    except CanonicalError:
        return
    assert encode(other) == bytes(encoded) != encode(value)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_with_our_error(data: bytes) -> None:
    with contextlib.suppress(CanonicalError):
        assert encode(decode(data)) == data


def test_a_nan_keeps_its_bits() -> None:
    quiet, other = b"\x00\x00\xc0\x7f", b"\x01\x00\xc0\x7f"
    one, two = (encode([Tensor("x", "FP32", (1,), raw)]) for raw in (quiet, other))
    assert one != two
    assert decode(one)[0].data == quiet


@pytest.mark.parametrize(
    "row",
    [
        ["a", "FP32", [True], b"0000"],
        ["a", "FP32", [1.0], b"0000"],
        [1, "FP32", [1], b"0000"],
        ["", "FP32", [1], b"0000"],
        ["a", "BYTES", [1], ["x"]],
        ["a", "BYTES", [1], "x"],
        ["a", ["FP32"], [1], b"0000"],
        ["a", "BOOL", [1], b"\x02"],
        ["a", "FP32", [0, 2**70], b""],
        ["a", "FP32", [0, 2**63], b""],
        ["a", "FP32", [-1], b""],
        ["a", "FP32", [2], b"0000"],
        ["a", "FP16", [1], b"0000"],
        ["a", "STRING", [1], b"0"],
        ["a", "BYTES", [2], [b"x"]],
        ["a", "FP32", [1]],
        {"name": "a"},
        1,
    ],
)
def test_malformed_tensors_are_refused(row: Any) -> None:
    with pytest.raises(CanonicalError):
        decode(cbor2.dumps([row], canonical=True))


def test_bytes_around_a_value_and_long_forms_are_refused() -> None:
    data = encode([Tensor("a", "UINT8", (1,), b"\1")])
    for other in (
        data + b"\0",
        data[:-1],
        b"\x98\x01" + data[1:],
        b"\x9f" + data[1:] + b"\xff",
        b"\xd9\xd9\xf7" + data,
    ):
        with pytest.raises(CanonicalError):
            decode(other)


def test_two_tensors_of_one_name_and_wrong_order_are_refused() -> None:
    one = Tensor("a", "UINT8", (1,), b"\1")
    with pytest.raises(CanonicalError, match="two tensors"):
        encode([one, one])
    with pytest.raises(CanonicalError):
        decode(cbor2.dumps([["b", "UINT8", [0], b""], ["a", "UINT8", [0], b""]], canonical=True))


def test_a_name_without_bytes_is_refused() -> None:
    with pytest.raises(CanonicalError, match="name"):
        Tensor("\ud800", "UINT8", (1,), b"\1")


def test_a_list_of_extents_is_a_shape() -> None:
    shape: Any = [1]
    assert Tensor("a", "UINT8", shape, b"\1") == Tensor("a", "UINT8", (1,), b"\1")


def _cbor(value: Any) -> bytes:
    """Deterministic CBOR by the letter of the RFC."""
    if isinstance(value, int):
        return _head(0, value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    return _head(4, len(value)) + b"".join(_cbor(item) for item in value)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise AssertionError(argument)
