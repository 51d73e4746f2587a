"""Tests wait for conditions: a sleep or a clock in a test needs a reason in `sleeps.toml`."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import waiting

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("sleeps.toml")
CALL = re.compile(r"\b(sleep|monotonic|perf_counter)(?:_ns)?\((?!0\))")
"""Also in the code of processes that a test starts. `sleep(0)` only lets others have their turn."""


def uses(path: Path) -> set[str]:
    """The calls of a module that sleep or read a clock."""
    return {call[1] for call in CALL.finditer(path.read_text())}


def found() -> dict[str, set[str]]:
    modules = {path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)}
    return {str(path.relative_to(ROOT)): calls for path in sorted(modules) if (calls := uses(path))}


def listed() -> Iterator[tuple[str, set[str]]]:
    for row in tomllib.loads(LIST.read_text())["use"]:
        assert row["why"]
        for file in row["files"]:
            yield file, set(row["calls"])


def test_every_sleep_and_clock_of_a_test_has_a_reason() -> None:
    allowed = dict(listed())
    unexplained = {file: calls - allowed.get(file, set()) for file, calls in found().items()}
    assert {file: calls for file, calls in unexplained.items() if calls} == {}


def test_no_reason_is_left_of_a_file_that_waits_for_conditions() -> None:
    assert [file for file, _ in listed() if file not in found()] == []


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        ("time.sleep(0.5)", {"sleep"}),
        ("await asyncio.sleep(pause)", {"sleep"}),
        ("run('import time; time.sleep(1)')", {"sleep"}),
        ("began = time.monotonic()", {"monotonic"}),
        ("began = time.perf_counter_ns()", {"perf_counter"}),
        ("await asyncio.sleep(0)", set()),
        ("began = time.process_time()", set()),
    ],
)
def test_a_new_sleep_or_clock_is_found(tmp_path: Path, code: str, calls: set[str]) -> None:
    """The planted faults, and what is none."""
    path = tmp_path / "test_planted.py"
    path.write_text(code)
    assert uses(path) == calls


def test_what_never_comes_about_is_named() -> None:
    with pytest.raises(AssertionError, match="still not: rain"):
        waiting.until(lambda: False, "rain", seconds=0)
    with pytest.raises(AssertionError, match="still not: rain"):
        asyncio.run(waiting.until_async(lambda: False, "rain", seconds=0))
    with pytest.raises(AssertionError, match="there was not: rain"):
        list(waiting.longer(1, "rain"))


def test_limits_are_doubled_until_one_is_long_enough() -> None:
    limits = waiting.longer(0.5, "rain")
    assert [next(limits) for _ in range(4)] == [0.5, 1, 2, 4]


def test_what_comes_about_is_waited_for() -> None:
    clouds = iter([False, False, True, False, True])
    waiting.until(lambda: next(clouds), "rain")
    asyncio.run(waiting.until_async(lambda: next(clouds), "rain"))
    assert list(clouds) == []
