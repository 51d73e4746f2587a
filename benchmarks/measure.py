"""Rows of a result, and timing that alternates, so that a busy machine is busy for both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """The answer to one question."""

    question: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float | None
    """Above 1: we are better. None where noise decides on which side of what is promised the figure lies."""
    at_least: float | None
    """What the ratio must reach; None where nothing is promised."""
    repeats: int
    method: str
    interval: tuple[float, float] | None = None
    """95 % confidence interval of `ours`, where it is a quantile of a sample."""

    @property
    def short(self) -> bool:
        """Does it fall short of what is promised?"""
        # A ratio that is not a number is not enough.
        return self.at_least is not None and self.ratio is not None and not self.ratio >= self.at_least

    @property
    def undecided(self) -> bool:
        """Is something promised, and can't this run tell whether it is kept?"""
        return self.at_least is not None and self.ratio is None

    @property
    def kept(self) -> bool:
        """Is what is promised shown, or nothing promised?"""
        return not self.short and not self.undecided

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Times:
    """Of one of those that are measured."""

    cpu: list[float]
    """Seconds of this process, each run; everything runs in one thread."""
    wall: list[float]
    """Seconds on the clock, which a busy machine stretches."""


def alternate(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    """Times of each run, `repeats` times in turn, after one of each that does not count."""
    found = {name: Times([], []) for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            found[name].cpu.append(time.process_time() - cpu)
            found[name].wall.append(time.perf_counter() - wall)
    return found


def time_row(question: str, ours: Times, peer: Times, peer_name: str, *, at_least: float | None, method: str) -> Row:
    """Milliseconds a run, less is better."""
    mine, theirs = statistics.median(ours.cpu) * 1e3, statistics.median(peer.cpu) * 1e3
    return _row(question, (mine, theirs, "ms"), (ours, peer), peer_name, method, at_least=at_least)


def rate_row(
    question: str, ours: Times, peer: Times, peer_name: str, *, at_least: float | None, method: str, count: int
) -> Row:
    """Designs a second, of runs that make `count` of them; more is better."""
    mine, theirs = count / statistics.median(ours.cpu), count / statistics.median(peer.cpu)
    return _row(question, (mine, theirs, "designs/s"), (ours, peer), peer_name, method, at_least=at_least)


def promise_row(question: str, found: float, promise: float, unit: str, *, method: str, repeats: int) -> Row:
    """A figure that has no peer but what is promised: at most `promise`, as in milliseconds."""
    ratio = round(promise / found, 2)
    return Row(question, round(found, 3), promise, "promised at most", unit, ratio, 1.0, repeats, method)


def quantile_row(
    question: str, values: Sequence[float], share: float, promise: float, unit: str, *, method: str
) -> Row:
    """A quantile of a sample against what is promised: at most `promise`.

    There is no ratio where its 95 % interval holds the promise: another run might say the opposite.
    """
    found, (low, high) = quantile(values, share), quantile_interval(values, share)
    ratio = None if low <= promise < high else round(promise / found, 2)
    spread = ", ".join(f"p{100 * part:g} {quantile(values, part):.2f}" for part in (0.1, 0.5, 0.9, 0.99))
    return Row(
        question, round(found, 3), promise, "promised at most", unit, ratio, 1.0, len(values),
        f"{method}; distribution: {spread} {unit}", (round(low, 3), round(high, 3)),
    )  # fmt: skip


def aim_row(question: str, found: float, aim: float, unit: str, *, method: str, repeats: int) -> Row:
    """A figure that is aimed at and not promised."""
    ratio = round(aim / found, 2)
    return Row(question, round(found, 3), aim, "aimed at", unit, ratio, None, repeats, method)


def faster_row(
    question: str, found: tuple[float, float], unit: str, peer_name: str, *, at_least: float | None, method: str,
    repeats: int,
) -> Row:  # fmt: skip
    """Rates of us and of a peer (or of what is promised); more is better."""
    mine, theirs = found
    return Row(
        question, round(mine, 1), round(theirs, 1), peer_name, unit, round(mine / theirs, 2), at_least, repeats, method
    )


def slower_row(
    question: str, found: tuple[float, float], unit: str, peer_name: str, *, at_least: float | None, method: str,
    repeats: int,
) -> Row:  # fmt: skip
    """Times of us and of a peer; less is better."""
    mine, theirs = found
    return Row(
        question, round(mine, 3), round(theirs, 3), peer_name, unit, round(theirs / mine, 2), at_least, repeats, method
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantile_interval(values: Sequence[float], share: float) -> tuple[float, float]:
    """The 95 % confidence interval of a quantile, by order statistics; infinite where the sample is too small.

    The ranks are those of the normal approximation of the binomial distribution (David and Nagaraja, Order
    Statistics, 2003, section 7.1): nothing is assumed of how the values are distributed.
    """
    ordered, count = sorted(values), len(values)
    half = 1.96 * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - half), math.ceil(count * share + half) + 1
    return (ordered[low - 1] if low >= 1 else -math.inf, ordered[high - 1] if high <= count else math.inf)


def _row(
    question: str, found: tuple[float, float, str], times: tuple[Times, Times], *names: str, at_least: float | None
) -> Row:
    ours, peer = times
    peer_name, method = names
    ratio = statistics.median(peer.cpu) / statistics.median(ours.cpu)
    by_clock = statistics.median(peer.wall) / statistics.median(ours.wall)
    method = f"{method}; medians of CPU time, alternating, one thread; by the clock {by_clock:.1f} times"
    mine, theirs = round(found[0], 2), round(found[1], 2)
    return Row(question, mine, theirs, peer_name, found[2], round(ratio, 2), at_least, len(ours.cpu), method)
