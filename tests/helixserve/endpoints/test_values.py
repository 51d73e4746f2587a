"""Requests are counted as their parsers would count them, and counting ends whatever the bytes are."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tritonclient.grpc import service_pb2 as pb

from helixserve.endpoints import values
from helixserve.endpoints.open_inference import from_raw
from helixserve.endpoints.values import VALUES, check_json, check_message
from helixserve.errors import HelixServeError, InvalidInputError, TooLargeError

TEXTS = st.text() | st.sampled_from(['"', "\\", '\\"[,{', "[[[", ",,,"])
JSON = st.recursive(
    st.none() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=30
)
KIND = pb.ModelInferRequest.DESCRIPTOR
_TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.text(max_size=3),
    shape=st.lists(st.integers(-5, 2**62), max_size=5),
    contents=st.builds(
        pb.InferTensorContents,
        int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
        fp32_contents=st.lists(st.floats(width=32), max_size=5),
        fp64_contents=st.lists(st.floats(), max_size=5),
        bool_contents=st.lists(st.booleans(), max_size=5),
        bytes_contents=st.lists(st.binary(max_size=3), max_size=5),
    ),
)
REQUESTS = st.builds(
    pb.ModelInferRequest,
    model_name=st.text(max_size=3),
    inputs=st.lists(_TENSORS, max_size=4),
    raw_input_contents=st.lists(st.binary(max_size=5), max_size=4),
)


def in_json(value: Any) -> int:
    """The values that lists and objects hold, and at least one each."""
    if not isinstance(value, dict | list):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return max(1, len(inner)) + sum(map(in_json, inner))


def in_message(message: Any) -> int:
    """Its fields, and the numbers that lie packed in them."""
    count = 0
    for field, value in message.ListFields():
        items = value if field.is_repeated else [value]
        if field.message_type is not None:
            count += len(items) + sum(map(in_message, items))
        elif field.cpp_type == field.CPPTYPE_STRING:
            count += len(items)
        else:
            count += 1 + len(items)
    return count


@given(JSON, st.booleans())
def test_json_is_refused_exactly_when_it_holds_too_much(value: Any, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "VALUES", in_json(value))
        check_json(body)
        patch.setattr(values, "VALUES", in_json(value) - 1)
        if in_json(value):
            with pytest.raises(TooLargeError):
                check_json(body)


@given(REQUESTS)
def test_a_message_is_refused_exactly_when_it_holds_too_much(message: Any) -> None:
    data, count = message.SerializeToString(), in_message(message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "VALUES", count)
        check_message(data, KIND)
        patch.setattr(values, "VALUES", count - 1)
        if count:
            with pytest.raises(TooLargeError):
                check_message(data, KIND)


@given(st.binary())
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "VALUES", 3)
        for check in (check_json, lambda given: check_message(given, KIND)):
            try:
                check(data)
            except HelixServeError as error:
                assert error.where in ("body", "message")


@pytest.mark.parametrize("unit", [rb"\"", b'"', rb"\\", b'"",', b'":', b"[", b"\0", b'""'], ids=repr)
def test_counting_json_ends_soon(unit: bytes) -> None:
    """The planted fault: a text without an end that is looked for at every quotation mark."""
    many = unit * (8_000_000 // len(unit))
    began = time.process_time()
    for body in (b"[" * VALUES + b'"' + many, b'"' + b",[" * VALUES + many, b'"' + b",[" * VALUES + b'"' + many):
        with contextlib.suppress(TooLargeError):
            check_json(body)
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a\x05\x0a\xff" + b"\x2a\x00" * VALUES,  # an input longer than what there is of it
        b"\x2b" + b"\x2a\x00" * VALUES,  # a group
        b"\x2a\x02\x0a\x7f" + b"\x2a\x00" * VALUES,
        b"\xff" * 20 + b"\x2a\x00" * VALUES,
        b"\x2f" + b"\x2a\x00" * VALUES,
    ],
    ids=["long", "group", "nested", "number", "wire"],
)
def test_no_damage_hides_what_follows_it(data: bytes) -> None:
    with pytest.raises((InvalidInputError, TooLargeError)):
        check_message(data, KIND)


def test_a_raw_tensor_of_texts_is_bounded_too() -> None:
    assert len(from_raw("names", "BYTES", [3], b"\0\0\0\0" * 3).data) == 3
    with pytest.raises(TooLargeError, match="100001 texts"):
        from_raw("names", "BYTES", [VALUES + 1], b"\0\0\0\0" * (VALUES + 1))
    assert len(from_raw("numbers", "INT8", [VALUES + 1], b"\0" * (VALUES + 1)).data) == VALUES + 1
