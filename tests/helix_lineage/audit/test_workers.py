"""Work in several processes: the order of one, and what they find is told."""

from __future__ import annotations

import gc
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from helix_lineage.audit.workers import _run, collector_resting, ranges, spread


def test_what_is_found_stands_in_the_order_of_the_parts() -> None:
    def work(part: int) -> tuple[int, int]:
        time.sleep(0.02 if part == 0 else 0)  # the first is done last
        return part, os.getpid()

    found = spread(work, range(5))
    assert [part for part, _ in found] == list(range(5))
    several = len(os.sched_getaffinity(0)) > 1
    assert (os.getpid() not in {process for _, process in found}) == several


def test_one_part_needs_no_process() -> None:
    assert spread(lambda _: os.getpid(), [1]) == [os.getpid()]
    assert spread(lambda _: os.getpid(), []) == []


def test_what_goes_wrong_in_a_process_is_raised_here() -> None:
    def work(part: int) -> int:
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part"):
        spread(work, [1, 2, 3])
    with pytest.raises(RuntimeError, match="not forked"):
        _run(0)


def test_a_process_that_the_system_kills_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})  # with one there would be no process

    def work(part: int) -> int:
        if part == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    with pytest.raises(BrokenProcessPool):
        spread(work, range(4))


def test_ranges_cover_everything_once() -> None:
    assert [at for part in ranges(10, 3) for at in part] == list(range(10))
    assert ranges(0, 3) == []


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_rests_and_is_then_as_it_was(before: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ValueError, match="x"), collector_resting():
            assert not gc.isenabled()
            raise ValueError("x")
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
