"""Benchmarks do not rot: the quick mode of each runs here, and answers the questions that it promises to answer."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks import every, logs, results
from benchmarks.setting import Setting


@pytest.mark.parametrize("name", ["shard_append", "trace_point", "audit_million"])
def test_the_quick_mode_answers_every_question(name: str, tmp_path: Path) -> None:
    rows = list(importlib.import_module(f"benchmarks.{name}").rows(Setting(tmp_path), True))
    assert [row.question for row in rows] == results.questions(name)
    assert all(row.ours > 0 and (row.ratio is None or row.ratio > 0) and row.method for row in rows)


def test_each_benchmark_runs_where_it_can() -> None:
    for name in results.NAMES:
        command = every.command(name, quick=True)
        assert ("env" in command) == (name in every.NEED_TORCH)
        assert command[-1] == "--quick"


def test_a_profile_names_the_functions_that_an_append_spends_its_time_in(tmp_path: Path) -> None:
    assert any("payload_writer.py" in line for line in logs.profile(tmp_path / "log"))
