from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from helixserve.endpoints.http.json_body import NESTING, read_json
from helixserve.errors import InvalidInputError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_read_exactly(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b"\xff",
        b"[" * 100_000,
        b"9" * 10_000,
        b"{} x",
        b"\0",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_json(body)
    assert caught.value.where == "body"


def test_a_body_nests_as_deep_as_is_allowed_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"[]" + b"}" * (depth - 1)

    for limit in (1, 3, NESTING):
        read_json(nested(limit), limit)
        with pytest.raises(InvalidInputError, match=f"nests deeper than {limit} levels"):
            read_json(nested(limit + 1), limit)


@pytest.mark.parametrize("body", [rb'"\ud800"', rb'{"\udfff": 1}', rb'["\udc00\ud800"]'])
def test_half_a_surrogate_pair_is_refused_and_a_whole_one_read(body: bytes) -> None:
    assert read_json(rb'"\ud83d\ude00"') == "😀"
    with pytest.raises(InvalidInputError, match="half a surrogate pair"):
        read_json(body)
