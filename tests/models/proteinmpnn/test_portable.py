"""exp from IEEE operations only."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, strategies as st

from proteinmpnn_model.portable import exp


@given(st.floats(min_value=-800.0, max_value=0.0))
def test_within_two_units_in_the_last_place(value: float) -> None:
    expected = math.exp(value)
    assert abs(float(exp(np.array([value]))[0]) - expected) <= 2 * math.ulp(expected)


@given(st.lists(st.floats(min_value=-800.0, max_value=0.0), min_size=1, max_size=40))
def test_a_value_has_the_same_bits_alone_and_among_others(values: list[float]) -> None:
    together = exp(np.array(values))
    assert [float(exp(np.array([value]))[0]) for value in values] == together.tolist()


@given(st.floats(min_value=-700.0, max_value=-1e-6))
def test_rises_with_its_argument(value: float) -> None:
    assert exp(np.array([value * 1.0001]))[0] < exp(np.array([value]))[0]


def test_the_ends() -> None:
    found = exp(np.array([0.0, -0.0, -math.inf, -1e8, -745.13, math.nan]))
    assert found[:4].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert found[4] == 5e-324
    assert math.isnan(found[5])


def test_these_bits_on_every_machine() -> None:
    values = np.array([-0.1, -1.0, -2.302585092994046, -10.0, -50.5, -700.0])
    assert [value.hex() for value in exp(values).tolist()] == [
        "0x1.cf46d99d52b3ap-1",
        "0x1.78b56362cef38p-2",
        "0x1.9999999999998p-4",
        "0x1.7cd79b5647c9ap-15",
        "0x1.1ad9f47f3722ap-73",
        "0x1.14f2b0fb9307fp-1010",
    ]
