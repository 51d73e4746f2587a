"""Results that are committed: each has the rows that its module makes, and the README shows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from benchmarks import results
from benchmarks.measure import Row

ROW = Row("how long?", 1.0, 2.0, "them", "ms", 2.0, 3.0, 1, "so")
RESULT: dict[str, Any] = {
    "name": "x", "machine": {"cores": 2, "processor": "p", "class": "c"}, "rows": [asdict(ROW)],
}  # fmt: skip


@pytest.mark.parametrize("result", results.load(), ids=lambda result: str(result["name"]))
def test_a_committed_result_has_the_rows_that_its_module_makes(result: dict[str, Any]) -> None:
    assert sorted(row["question"] for row in result["rows"]) == sorted(results.questions(result["name"]))


def test_the_readme_names_the_benchmarks_without_a_result() -> None:
    measured = {result["name"] for result in results.load()}
    missing = ", ".join(name for name in results.NAMES if name not in measured)
    readme = results.README.read_text(encoding="utf-8")
    assert ("No result is committed yet" in readme) == bool(missing), "run: make bench"
    assert missing in readme


def test_the_readme_shows_the_committed_results() -> None:
    readme = results.README.read_text(encoding="utf-8")
    assert results.with_table(readme, results.load()) == readme, "run: python -m benchmarks readme"


def test_a_readme_that_shows_other_figures_is_found() -> None:
    """The planted fault."""
    readme = results.with_table(f"# x\n{results.BEGIN}{results.END}\n", [RESULT])
    assert "| how long? | 1 ms | 2 ms, them | 2 (**short**) | 3 | 2 cores of p, c |" in readme
    edited = readme.replace("| 1 ms", "| 0.1 ms")
    assert results.with_table(edited, [RESULT]) == readme != edited


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- benchmarks -->"):
        results.with_table("# x", [RESULT])
