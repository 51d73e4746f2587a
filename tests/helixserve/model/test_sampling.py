from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from helixserve.model import sampling

FROZEN_SEED = 237395182222444051297569003201104979418
FROZEN_UNIFORMS = ["0x1.ad8a9e9cef4eap-1", "0x1.a56daeb8d02ecp-2", "0x1.0fcd589f3fb93p-1"]
FROZEN_PERMUTATION = [4, 5, 1, 7, 6, 2, 0, 3]
SEEDS = st.integers(0, 2**64 - 1)


def test_the_tree_of_seeds_is_frozen() -> None:
    """These numbers stand in logs: another value here would make every old prediction unreplayable."""
    seed = sampling.item_seed(7, 3)
    assert seed == FROZEN_SEED
    assert [number.hex() for number in sampling.uniforms(seed, 3).tolist()] == FROZEN_UNIFORMS
    assert sampling.permutation(seed, 8).tolist() == FROZEN_PERMUTATION


@given(SEEDS, st.integers(0, 1000))
def test_seeds_differ_by_item_and_root(root: int, item: int) -> None:
    seed = sampling.item_seed(root, item)
    assert 0 <= seed < 2**128
    assert seed != sampling.item_seed(root, item + 1)
    assert seed != sampling.item_seed(root ^ 1, item)


@pytest.mark.parametrize(("root", "item"), [(-1, 0), (2**64, 0), (0, -1)])
def test_seeds_outside_64_bits_are_a_callers_bug(root: int, item: int) -> None:
    with pytest.raises(ValueError, match="root seed"):
        sampling.item_seed(root, item)


@given(SEEDS, st.integers(0, 50), st.integers(0, 50))
def test_a_longer_draw_begins_with_the_shorter_one(seed: int, few: int, more: int) -> None:
    few, more = sorted((few, more))
    assert np.array_equal(sampling.uniforms(seed, more)[:few], sampling.uniforms(seed, few))


@given(SEEDS, st.integers(0, 200))
def test_uniforms_are_exact_fractions_in_the_half_open_interval(seed: int, count: int) -> None:
    numbers = sampling.uniforms(seed, count)
    assert numbers.shape == (count,)
    assert all(0 <= number < 1 and (number * 2**53).is_integer() for number in numbers.tolist())


@given(SEEDS, st.integers(0, 200))
def test_a_permutation_holds_each_number_once(seed: int, count: int) -> None:
    assert sorted(sampling.permutation(seed, count).tolist()) == list(range(count))


def test_uniforms_and_permutation_of_one_seed_are_independent() -> None:
    assert sampling.permutation(5, 50).tolist() != np.argsort(sampling.uniforms(5, 50)).tolist()


WEIGHTS = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=21).filter(lambda w: sum(w) > 0)


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_choice_has_weight_and_lies_where_the_cumulative_weight_passes(weights: list[float], uniform: float) -> None:
    chosen = sampling.choose(np.array(weights), uniform)
    assert weights[chosen] > 0
    assert sum(weights[:chosen]) <= uniform * sum(weights) + 1e-9 * sum(weights)


def test_choice_follows_the_weights() -> None:
    uniforms = sampling.uniforms(1, 20000)
    counts = np.bincount([sampling.choose(np.array([1.0, 0.0, 3.0]), u) for u in uniforms.tolist()], minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] / 20000 - 0.25) < 0.02


def test_choice_without_weight_is_a_callers_bug() -> None:
    with pytest.raises(ValueError, match="no positive weight"):
        sampling.choose(np.zeros(3), 0.5)
