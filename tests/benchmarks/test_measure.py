"""The harness: what counts as short, who is timed when, and a plot that is well-formed."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import Row, Times, alternate, quantile_interval, quantile_row, rate_row, time_row
from benchmarks.plot import draw

OURS, PEER = Times([0.01, 0.02, 0.09], [0.1]), Times([0.1, 0.1, 0.2], [0.2])


def _row(at_least: float | None = 5.0) -> Row:
    return time_row("one & only", OURS, PEER, "them", at_least=at_least, method="so")


def test_a_ratio_above_one_means_that_we_are_better() -> None:
    row = _row()
    assert (row.ours, row.peer, row.ratio, row.repeats, row.short) == (20.0, 100.0, 5.0, 3, False)
    rate = rate_row("many", OURS, PEER, "them", at_least=4.0, method="so", count=4)
    assert (rate.ours, rate.peer, rate.ratio) == (200.0, 40.0, 5.0)
    assert "by the clock 2.0 times" in row.method


@pytest.mark.parametrize("ratio", [4.99, 0.0, math.nan])
def test_less_than_promised_is_short(ratio: float) -> None:
    assert replace(_row(), ratio=ratio).short
    assert not replace(_row(None), ratio=ratio).short


def test_a_quantile_that_noise_can_decide_has_no_ratio_and_is_not_kept() -> None:
    values = [float(number) for number in range(1000)]
    clear, close = (quantile_row("p50", values, 0.5, promise, "ms", method="so") for promise in (600.0, 510.0))
    assert (clear.ours, clear.ratio, clear.kept) == (499.0, 1.2, True)
    assert (close.ratio, close.short, close.undecided, close.kept) == (None, False, True, False)
    assert close.interval is not None
    assert close.interval[0] < close.ours < 510.0 < close.interval[1]
    assert quantile_row("p50", values, 0.5, 400.0, "ms", method="so").short


def test_a_sample_too_small_for_its_quantile_decides_nothing() -> None:
    values = [1.0] * 100
    assert quantile_interval(values, 0.99)[1] == math.inf
    assert quantile_row("p99", values, 0.99, 10.0, "ms", method="so").undecided
    assert quantile_row("p99", [1.0] * 1000, 0.99, 10.0, "ms", method="so").kept


def test_an_interval_holds_its_quantile_19_times_of_20() -> None:
    choose = random.Random(0)
    held = 0
    for _ in range(400):
        low, high = quantile_interval([choose.expovariate(1.0) for _ in range(300)], 0.5)
        held += low <= math.log(2) <= high
    assert held >= 370


def test_runs_alternate_after_one_of_each_that_does_not_count() -> None:
    calls: list[str] = []
    found = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: (len(times.cpu), len(times.wall)) for name, times in found.items()} == {"a": (2, 2), "b": (2, 2)}


def test_the_plot_is_well_formed_and_shows_what_is_short() -> None:
    root = ElementTree.fromstring(draw("<title>", [_row(), replace(_row(), ratio=2.0)]))  # noqa: S314 - our own text
    undecided = replace(_row(), ratio=None)
    assert "not decided" in draw("x", [undecided])
    assert [bar.get("fill") for bar in root if bar.get("height") == "18"] == ["#2e6f9e", "#b3261e"]
    assert "one & only" in [text.text for text in root]


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nothing"])
    assert ended.value.code == 2
    assert "design_many" in capsys.readouterr().err
