"""Stored values as text, of every data type."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, strategies

from helix_lineage.evidence.values import Values, stored, words
from helix_lineage.formats.typed import ITEM_BYTES, Tensor, decode
from tests.helix_lineage.support import World, request


@pytest.mark.parametrize("datatype", ITEM_BYTES)
def test_every_data_type_has_a_text(datatype: str) -> None:
    assert (
        words(Tensor(datatype, datatype, (3,), bytes(3 * ITEM_BYTES[datatype])))
        == ["False" if datatype == "BOOL" else "0" if datatype != "FP64" else "0.0"] * 3
    )


@given(strategies.floats(width=32, allow_nan=False))
def test_numbers_of_32_bits_are_shown_with_the_digits_that_they_hold(value: float) -> None:
    (shown,) = words(Tensor("x", "FP32", (1,), struct.pack("<f", value)))
    assert float(shown) == pytest.approx(value, rel=1e-6)


def test_only_the_first_are_read_and_text_that_is_none_is_shown() -> None:
    assert words(Tensor("x", "INT32", (4,), struct.pack("<4i", 1, -2, 3, 4)), 2) == ["1", "-2"]
    assert words(Tensor("x", "BYTES", (2,), (b"\xff", "é".encode()))) == ["\\xff", "é"]
    assert words(Tensor("x", "FP32", (2,), struct.pack("<2f", float("nan"), float("-inf")))) == ["nan", "-inf"]


def test_what_is_kept_is_given_and_what_is_not_is_none(world: World) -> None:
    (item,) = request()
    (name, other) = world.shard([[item], [replace(item, request_id=b"2" * 16, output=b"no typed value")]])
    shard, sequence = world.log.find(name)
    entry = shard.prediction(sequence)
    assert stored(shard, sequence, entry) == Values(decode(item.input), decode(item.output))
    assert stored(shard, sequence, replace(entry, input_commitment=b"1" * 32)).input is None
    assert stored(shard, 77, entry) == Values()
    shard, sequence = world.log.find(other)
    assert stored(shard, sequence, shard.prediction(sequence)).output is None


def test_warnings_are_those_of_the_output_alone() -> None:
    told = Tensor("warnings", "BYTES", (2,), (b"one", b"two"))
    assert Values(output=(told,)).warnings == ["one", "two"]
    assert Values(input=(told,)).warnings == Values().warnings == []
