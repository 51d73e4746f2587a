from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from helix_lineage.formats.typed import Tensor, encode
from helix_lineage.replay import ReplayPlan
from helix_lineage.replay.tolerance import compare
from helix_lineage.replay.verdict import DIFFERS, OTHER_CLASS, SAME, WITHIN, OutputDifference, judge
from tests.helix_lineage.support import typed_output


def floats(*values: float, datatype: str = "FP32", name: str = "x") -> Tensor:
    code = {"FP16": "e", "FP32": "f", "FP64": "d"}[datatype]
    return Tensor(name, datatype, (len(values),), struct.pack(f"<{len(values)}{code}", *values))


def text(value: bytes) -> Tensor:
    return Tensor("sequence", "BYTES", (1,), (value,))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_numbers_are_compared_element_by_element(datatype: str) -> None:
    one = encode([floats(1, -2, 0, 4, datatype=datatype), text(b"MK")])
    other = encode([floats(1, -2.5, 0.25, 4, datatype=datatype), text(b"MK")])
    near, far = compare(one, other, 0.25), compare(one, other, 0.125)
    assert near.within
    assert (near.elements, near.largest_absolute, near.largest_relative, near.beyond) == (4, 0.5, 0.25, 0)
    assert near.worst == "tensor 'x', element 1: recorded -2.0, replayed -2.5"
    assert (far.within, far.beyond) == (False, 2)
    assert "2 beyond it, the worst tensor 'x', element 1" in far.sentence


def test_large_numbers_are_compared_by_their_size() -> None:
    one, other = encode([floats(1e6)]), encode([floats(1e6 + 64)])
    assert compare(one, other, 1e-4).within
    assert not compare(one, other, 1e-5).within


@pytest.mark.parametrize(
    ("one", "other", "within"),
    [
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.nan, 0.0, False),
        (0.0, math.nan, False),
        (math.inf, -math.inf, False),
        (math.inf, 1e30, False),
        (0.0, -0.0, True),
    ],
)
def test_what_is_no_number_equals_itself_only(one: float, other: float, within: bool) -> None:
    found = compare(encode([floats(one)]), encode([floats(other)]), 1e30)
    assert found.within is within
    assert found.to_json()["largest_absolute"] == (0.0 if within else "float:inf")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ([text(b"MK")], [text(b"MR")], "tensor 'sequence' (BYTES) must be the same exactly"),
        ([Tensor("n", "INT32", (1,), b"\1\0\0\0")], [Tensor("n", "INT32", (1,), b"\2\0\0\0")], "tensor 'n' (INT32)"),
        ([floats(1)], [floats(1), text(b"")], "tensor 'sequence' is only in the replayed answer"),
        ([floats(1), text(b"")], [floats(1)], "tensor 'sequence' is only in the recorded answer"),
        ([floats(1)], [floats(1, 1)], "tensor 'x' was FP32 [1], now FP32 [2]"),
        ([floats(1)], [floats(1, datatype="FP64")], "tensor 'x' was FP32 [1], now FP64 [1]"),
    ],
)
def test_everything_but_numbers_must_be_the_same(one: list[Tensor], other: list[Tensor], said: str) -> None:
    found = compare(encode(one), encode(other), 1e30)
    assert not found.within
    assert said in found.sentence
    assert found.to_json()["unequal"]
    assert "not a typed value" in compare(b"junk", encode(one), 1.0).sentence


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.floats(0, 1))
def test_a_value_is_within_any_tolerance_of_itself_and_a_plain_rule_agrees(values: list[float], by: float) -> None:
    one = encode([floats(*values)])
    moved = [struct.unpack("<f", struct.pack("<f", value + by))[0] if abs(value) < 1e30 else value for value in values]
    assert compare(one, one, 0.0).within
    found = compare(one, encode([floats(*moved)]), 0.5)
    assert found.within == all(abs(a - b) <= 0.5 * max(1.0, abs(a)) for a, b in zip(values, moved, strict=True))


# ---- the verdict ---------------------------------------------------------------------------------


NEAR = encode([text(b"MK0"), Tensor("score", "FP32", (1,), struct.pack("<f", 1.00001))])


def test_other_bytes_on_another_class_are_no_verdict_and_both_are_named(ready: ReplayPlan) -> None:
    verdict = judge(ready, [], "x86-64-v3", NEAR)
    assert (verdict.outcome, verdict.same) == (OTHER_CLASS, False)
    assert verdict.differences[0].detail == "served on x86-64-v4, replayed on x86-64-v3"
    said = verdict.to_json()
    assert (said["outcome"], said["recorded_class"], said["machine_class"]) == (
        "other-machine-class", "x86-64-v4", "x86-64-v3",
    )  # fmt: skip
    assert judge(ready, [], "x86-64-v3", typed_output("MK0")).outcome == SAME
    assert judge(ready, [], "x86-64-v4", NEAR).outcome == DIFFERS


def test_a_tolerance_gives_a_verdict_with_the_figures(ready: ReplayPlan) -> None:
    for machine in ("x86-64-v3", "x86-64-v4"):
        verdict = judge(ready, [], machine, NEAR, 1e-4)
        assert verdict.outcome == WITHIN
        assert verdict.deviation
        assert verdict.deviation.largest_absolute == pytest.approx(1e-5, rel=0.01)
        assert judge(ready, [], machine, NEAR, 1e-6).outcome == DIFFERS
        assert judge(ready, [], machine, typed_output("LIE"), 1e9).outcome == DIFFERS
    assert judge(ready, [], "x86-64-v4", typed_output("MK0"), 1e-4).deviation is None


def test_a_tolerance_excuses_no_changed_file_and_no_other_seed(ready: ReplayPlan) -> None:
    assert judge(ready, [OutputDifference("weights", "w")], "x86-64-v3", NEAR, 1e-4).outcome == DIFFERS
    assert judge(ready.with_seed(8), [], "x86-64-v3", NEAR, 1e-4).outcome == DIFFERS
    assert judge(ready, [OutputDifference("file", "f")], "x86-64-v3", NEAR).outcome == DIFFERS


def test_a_tolerance_needs_the_answer_that_was_committed_to(ready: ReplayPlan) -> None:
    for stored in (None, NEAR):
        verdict = judge(replace(ready, stored_output=stored), [], "x86-64-v4", NEAR, 1e-4)
        assert verdict.outcome == DIFFERS
        assert verdict.differences[-1].factor == "stored-output"
