from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import ShardError
from helix_lineage.shard.entries import dump, load_array
from helix_lineage.shard.header import ShardHeader, parse_prediction_id, prediction_id, shard_id
from tests.helix_lineage.support import digest, header, make_chain

_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_digests = st.none() | st.binary(min_size=1, max_size=2).map(lambda data: digest(data.hex()))


@st.composite
def headers(draw: st.DrawFn) -> ShardHeader:
    promotion = draw(_digests)
    return ShardHeader(
        release=draw(_digests),
        image=draw(_digests),
        machine_class=draw(_texts),
        libraries=draw(st.dictionaries(_texts, _texts, max_size=4)),
        model=draw(_texts),
        promotion=promotion,
        mode="local" if promotion is None else "promoted",
        generation=draw(st.integers(0, 2**64 - 1)),
        public_key=draw(st.binary(min_size=32, max_size=32)),
        started_ns=draw(st.integers(0, 2**64 - 1)),
    )


@given(headers())
def test_a_header_reads_back_as_itself(value: ShardHeader) -> None:
    assert ShardHeader.from_bytes(value.to_bytes()) == value


@given(headers(), st.data())
def test_a_changed_byte_changes_the_shards_id(value: ShardHeader, data: st.DataObject) -> None:
    entry = bytearray(value.to_bytes())
    before = shard_id(bytes(entry))
    entry[data.draw(st.integers(0, len(entry) - 1))] ^= data.draw(st.integers(1, 255))
    assert shard_id(bytes(entry)) != before


def test_the_id_is_the_start_of_the_headers_hash() -> None:
    entry = header(make_chain()).to_bytes()
    assert shard_id(entry) == hashlib.sha256(entry).hexdigest()[:32]
    assert parse_prediction_id(prediction_id(shard_id(entry), 17)) == (shard_id(entry), 17)


@pytest.mark.parametrize(
    "text",
    ["", "x", "0" * 32, "0" * 32 + ".", "0" * 32 + ".01", "0" * 32 + ".-1", "0" * 31 + ".1", "A" * 32 + ".1",
     "0" * 32 + ".1.2", "0" * 32 + ".x", "0" * 32 + ".\u0661", "0" * 32 + "." + "9" * 5000, "../" + "0" * 29 + ".1"],
)  # fmt: skip
def test_what_is_no_prediction_id_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match="not a prediction id"):
        parse_prediction_id(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"release": "latest"},
        {"image": "sha256:1"},
        {"mode": "production"},
        {"mode": "promoted"},
        {"promotion": digest("p")},
        {"public_key": b"short"},
        {"generation": -1},
        {"model": ""},
        {"machine_class": ""},
        {"libraries": {"": "1"}},
        {"libraries": {"numpy": 1}},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ShardError):
        header(**changes)


def test_other_entries_and_other_orders_are_no_headers() -> None:
    good = load_array(header(make_chain()).to_bytes())
    for value in (
        [1, 1, *good[2:]],
        [2, 0, *good[2:]],
        good[:-1],
        [*good, 1],
        [*good[:-2], [["b", "1"], ["a", "1"]], 0],
        [*good[:-2], [["a"]], 0],
        [*good[:-2], 3, 0],
        [*good[:5], "digest", *good[6:]],
    ):
        with pytest.raises(ShardError):
            ShardHeader.from_bytes(dump(value))
    with pytest.raises(ShardError):
        ShardHeader.from_bytes(b"\xff")
