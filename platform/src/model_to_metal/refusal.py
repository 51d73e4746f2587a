"""What a gate's verdict lists: findings with file and fix, cases with value and limit.

Takes a verdict's parameters; pure. The stage's own command, the error that ends a run, and the
commands that show a verdict print the same lines. Only the standard library is imported: stages
run where little else is.

>>> case = {"case": "1ubi", "metric": "deviation", "value": 0.0002, "allowed": 0.0001, "passed": False}
>>> [line(row) for row in failures({"passed": False, "cases": [case]})]
['FAIL 1ubi: deviation is 0.0002, allowed 0.0001']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""A finding, a judged case, or a measurement that is only reported."""

_NO_EVIDENCE: Row = {
    "case": "no evidence", "metric": "number of judged cases", "value": 0, "allowed": "at least 1", "passed": False,
}  # fmt: skip


def failures(verdict: Mapping[str, Any]) -> list[Row]:
    """Why the verdict is no: its findings and failed cases. Never empty for a refusal, empty for a pass."""
    if verdict.get("passed") is True:
        return []
    cases = [case for case in verdict.get("cases") or () if case["passed"] is not True]
    return [*(verdict.get("findings") or ()), *cases] or [_NO_EVIDENCE]


def rows(verdict: Mapping[str, Any]) -> list[Row]:
    """Everything that a verdict holds; what failed comes first."""
    cases = sorted(verdict.get("cases") or (), key=lambda case: case["passed"] is True)
    # Verdicts of earlier releases report nothing.
    return [*(verdict.get("findings") or ()), *cases, *(verdict.get("reported") or ())]


def line(row: Row) -> str:
    """A row as one line: what, where it stands, and the limit or the fix.

    >>> line({"rule": "no-pickle", "file": "a.py", "line": 3, "message": "imports pickle", "fix": "use safetensors"})
    'no-pickle  a.py:3  imports pickle; fix: use safetensors'
    >>> line({"case": "1ubi in float32", "metric": "deviation", "value": 0.0002})
    'info 1ubi in float32: deviation is 0.0002, reported only'
    """
    if "rule" in row:
        place = f"{row['file']}:{row['line']}" if row["line"] else row["file"]
        return f"{row['rule']}  {place}  {row['message']}; fix: {row['fix']}"
    measured = f"{row['case']}: {row['metric']} is {row['value']}"
    if "allowed" not in row:
        return f"info {measured}, reported only"
    return f"{'ok  ' if row['passed'] is True else 'FAIL'} {measured}, allowed {row['allowed']}"
