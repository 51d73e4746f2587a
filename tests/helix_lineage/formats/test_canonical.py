from __future__ import annotations

import json
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import (
    SAFE_INTEGER,
    check_digest,
    digest_bytes,
    dumps,
    encode_number,
    file_digest,
    loads,
)

# Whole floats beyond 2**53 have no canonical form here (see test_a_whole_float_…).
_floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not (SAFE_INTEGER <= abs(x) < 1e21))
_scalars = (
    st.none() | st.booleans() | st.integers(-SAFE_INTEGER + 1, SAFE_INTEGER - 1) | _floats
    | st.text(st.characters(exclude_categories=["Cs"]))
)  # fmt: skip
json_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_reading_what_was_written_gives_the_same_value(value: Any) -> None:
    assert loads(dumps(value)) == value


@given(json_values)
def test_one_value_has_one_spelling(value: Any) -> None:
    assert dumps(json.loads(json.dumps(value, indent=1, ensure_ascii=True))) == dumps(value)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 9)))
def test_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert dumps(dict(reversed(list(value.items())))) == dumps(value)


def test_keys_are_sorted_by_utf16() -> None:
    # U+1F600 is D83D DE00 in UTF-16, below U+FB33; by code points it would come after.
    assert dumps({"\ufb33": 1, "\U0001f600": 2}).decode() == '{"\U0001f600":2,"\ufb33":1}'


def test_published_example_of_numbers() -> None:
    assert dumps([333333333.33333329, 1e30, 4.50, 2e-3, 1e-27]) == b"[333333333.3333333,1e+30,4.5,0.002,1e-27]"


@pytest.mark.parametrize(
    "value",
    [SAFE_INTEGER, -SAFE_INTEGER, math.nan, math.inf, -math.inf, b"bytes", {1: 2}, {"a": {3}}, "\ud800", {"\ud800": 1}],
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(CanonicalError):
        dumps(value)


@pytest.mark.parametrize("value", [float(SAFE_INTEGER), -1e17, 9.9e20])
def test_a_whole_float_beyond_the_safe_integers_is_refused_because_it_could_not_be_read_back(value: float) -> None:
    with pytest.raises(CanonicalError, match="whole number"):
        dumps(value)


@pytest.mark.parametrize("value", [1e21, -3e300, 5e-324])
def test_floats_with_an_exponent_are_read_back(value: float) -> None:
    assert loads(dumps(value)) == value


def test_nesting_without_end_is_an_error_of_ours() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(CanonicalError):
        dumps(value)
    with pytest.raises(CanonicalError):
        loads(b"[" * 900 + b"]" * 900)


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1,"a":1}',
        b"1.0",
        b"1e3",
        b'"\\u0041"',
        b"NaN",
        b"1e400",
        b"",
        b"{",
        b"\xff",
        b"9007199254740993",
        '"a"'.encode("utf-16"),
        b'\xef\xbb\xbf"a"',
        b"[1]\n",
    ],
)
def test_json_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(CanonicalError):
        loads(data)


def test_mappings_and_tuples_are_objects_and_lists() -> None:
    assert dumps(MappingProxyType({"a": (1, 2)})) == b'{"a":[1,2]}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2**53, "9007199254740992"), (-(2**53), "-9007199254740992"), (2**53 - 1, 2**53 - 1), (0.5, 0.5),
     (math.nan, "float:nan"), (math.inf, "float:inf"), (-math.inf, "float:-inf")],
)  # fmt: skip
def test_numbers_beyond_the_limits_are_tagged(value: float, expected: object) -> None:
    assert encode_number(value) == expected
    loads(dumps(encode_number(value)))


def test_digests() -> None:
    digest = digest_bytes(b"")
    assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert check_digest(digest) == digest


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    assert file_digest(tmp_path / "file") == digest_bytes(b"bytes")


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "0" * 64, None, 1,
                                  "sha256:" + "0" * 64 + "\n"])  # fmt: skip
def test_malformed_digests_are_refused(text: object) -> None:
    with pytest.raises(CanonicalError):
        check_digest(text)
