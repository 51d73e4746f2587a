from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from helixserve.doors.json_body import read_json
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
