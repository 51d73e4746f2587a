from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given

from helix_lineage.errors import ReplayError
from helix_lineage.formats.typed import Tensor, encode
from helix_lineage.replay import ReplayPlan
from helix_lineage.replay.verdict import OutputDifference, failed, first_difference, judge
from helix_lineage.shard.entries import commitment
from tests.helix_lineage.formats.test_typed import values
from tests.helix_lineage.support import typed_output


def test_the_same_output_is_the_same_bytes(ready: ReplayPlan) -> None:
    verdict = judge(ready, [], "x86-64-v4", typed_output("MK0"))
    assert verdict.same
    assert verdict.to_json()["differences"] == []
    without = judge(replace(ready, stored_output=None), [], "x86-64-v4", typed_output("MK0"))
    assert without.same


def test_a_stored_output_that_was_changed_does_not_count(ready: ReplayPlan) -> None:
    lie = replace(ready, stored_output=typed_output("LIE"))
    assert judge(lie, [], "x86-64-v4", typed_output("MK0")).same
    verdict = judge(lie, [], "x86-64-v4", typed_output("LIE"))
    assert not verdict.same
    assert "so does the stored output" in verdict.differences[0].detail


def test_a_changed_file_fails_whatever_the_bytes(ready: ReplayPlan) -> None:
    verdict = judge(ready, [OutputDifference("weights", "w")], "x86-64-v4", typed_output("MK0"))
    assert not verdict.same
    assert [item.factor for item in verdict.differences] == ["weights"]


def test_a_changed_input_of_the_same_seed_is_the_input(ready: ReplayPlan) -> None:
    verdict = judge(replace(ready, input_salt=b"\1" * 32), [], "x86-64-v4", typed_output("MK0"))
    assert [item.factor for item in verdict.differences] == ["input"]


def test_a_failure_keeps_what_differs(ready: ReplayPlan) -> None:
    verdict = failed(replace(ready, input_salt=b"\1" * 32), [OutputDifference("file", "f")], "boom")
    assert [item.factor for item in verdict.differences] == ["file", "input", "error"]
    assert (verdict.same, verdict.output, verdict.machine_class) == (False, None, None)
    assert verdict.outcome == "differs"


def test_a_failure_alone_is_neither_yes_nor_no(ready: ReplayPlan) -> None:
    """Also with a seed that was swapped on purpose: that nothing came out is no difference of the two."""
    for given_plan in (ready, ready.with_seed(8)):
        verdict = failed(given_plan, [], "qemu-x86_64 is not installed")
        assert [item.factor for item in verdict.differences] == ["error"]
        assert (verdict.outcome, verdict.same) == ("not-replayed", False)


def test_a_task_without_a_seed_is_given_none(ready: ReplayPlan) -> None:
    unseeded = replace(ready, entry=replace(ready.entry, seed=None))
    with pytest.raises(ReplayError, match="its task draws nothing"):
        unseeded.with_seed(8)


def test_the_first_differing_element_is_named() -> None:
    one = [
        Tensor("log_probability", "FP32", (2, 2), struct.pack("<4f", 1, 2, 3, 4)),
        Tensor("z", "BYTES", (1,), (b"a",)),
    ]
    two = [
        Tensor("log_probability", "FP32", (2, 2), struct.pack("<4f", 1, 2, 3.5, 5)),
        Tensor("z", "BYTES", (1,), (b"b",)),
    ]
    assert (
        first_difference(encode(one), encode(two)) == "tensor 'log_probability', element 2: recorded 3.0, replayed 3.5"
    )
    assert first_difference(encode(one[1:]), encode(two[1:])) == "tensor 'z', element 0: recorded b'a', replayed b'b'"
    assert first_difference(encode(one), encode(one[:1])) == "tensor 'z' is only in the recorded output"
    assert first_difference(encode(one[:1]), encode(one)) == "tensor 'z' is only in the replayed output"
    other = Tensor("z", "BYTES", (2,), (b"a", b"b"))
    assert first_difference(encode(one[1:]), encode([other])) == "tensor 'z' was BYTES [1], now BYTES [2]"
    assert "not a typed value" in first_difference(b"junk", encode(one))


@given(values, values)
def test_some_difference_is_named_for_any_two_values(one: list[Tensor], two: list[Tensor]) -> None:
    text = first_difference(encode(one), encode(two))
    assert text.startswith("the typed values are equal") == (encode(one) == encode(two))


def test_commitments_decide_and_not_stored_bytes(ready: ReplayPlan) -> None:
    assert commitment(ready.output_salt, typed_output("MK0")) == ready.entry.output_commitment
