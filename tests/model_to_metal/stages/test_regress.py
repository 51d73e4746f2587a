from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.formats.canonical import dumps
from model_to_metal.errors import StageError
from model_to_metal.stages.regress import judge

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def case(value: Any, allowed: Any, name: str = "1ubi") -> dict[str, Any]:
    return {"case": name, "metric": "deviation", "value": value, "allowed": allowed}


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6))
def test_passes_exactly_when_there_are_cases_and_each_is_within_what_is_allowed(
    pairs: list[tuple[float, float]],
) -> None:
    verdict = judge([case(value, allowed) for value, allowed in pairs])
    within = [
        not math.isnan(value) and not math.isnan(allowed) and not math.isinf(allowed) and value <= allowed
        for value, allowed in pairs
    ]
    assert verdict["passed"] is (bool(pairs) and all(within))
    assert [row["passed"] for row in verdict["cases"]] == within
    dumps(verdict)  # whatever was measured can be recorded


def test_no_case_is_no_evidence() -> None:
    assert judge([])["passed"] is False


def test_a_nan_among_good_cases_fails() -> None:
    assert judge([case(0.0, 1.0), case(math.nan, 1.0)])["passed"] is False


def test_an_infinite_tolerance_allows_nothing() -> None:
    assert judge([case(0.0, math.inf)])["passed"] is False


def test_what_is_only_reported_cannot_fail_and_is_no_evidence() -> None:
    noise = case(math.inf, None, "the network in float32")
    verdict = judge([case(0.0, 1.0), noise])
    assert verdict["passed"] is True
    assert [row["case"] for row in verdict["cases"]] == ["1ubi"]
    assert verdict["reported"] == [{"case": "the network in float32", "metric": "deviation", "value": "float:inf"}]
    dumps(verdict)
    assert judge([noise])["passed"] is False
    assert judge([case(2.0, 1.0), noise])["passed"] is False


def test_zero_allowed_passes_zero_only() -> None:
    assert judge([case(0, 0)])["passed"] is True
    assert judge([case(1, 0)])["passed"] is False


@pytest.mark.parametrize(
    "bad", [{}, {"case": "a", "metric": "b", "value": 1}, case("much", 1), case(None, 1), case("much", None), "case"]
)
def test_a_malformed_case_is_the_hooks_mistake(bad: Any) -> None:
    with pytest.raises(StageError):
        judge([bad])
