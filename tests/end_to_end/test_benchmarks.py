"""Benchmarks of the released image do not rot either."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.setting import Setting
from tests.end_to_end.conftest import Released

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["request", "lineage_cost"])
def test_the_quick_mode_answers_every_question(released: Released, name: str, tmp_path: Path) -> None:
    rows = list(importlib.import_module(f"benchmarks.{name}").rows(Setting(tmp_path), True))
    assert [row.question for row in rows] == results.questions(name)
