"""The harness: what counts as short, who is timed when, and a plot that is well-formed."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import Row, Times, alternate, rate_row, time_row
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


def test_runs_alternate_after_one_of_each_that_does_not_count() -> None:
    calls: list[str] = []
    found = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: (len(times.cpu), len(times.wall)) for name, times in found.items()} == {"a": (2, 2), "b": (2, 2)}


def test_the_plot_is_well_formed_and_shows_what_is_short() -> None:
    root = ElementTree.fromstring(draw("<title>", [_row(), replace(_row(), ratio=2.0)]))  # noqa: S314 - our own text
    assert [bar.get("fill") for bar in root if bar.get("height") == "18"] == ["#2e6f9e", "#b3261e"]
    assert "one & only" in [text.text for text in root]


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nothing"])
    assert ended.value.code == 2
    assert "design_many" in capsys.readouterr().err
