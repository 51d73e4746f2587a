"""How results look on a screen: plain lines, no judgement of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from helix_lineage.records import Record
from model_to_metal.engine import Outcome

Write = Callable[[str], None]


class Lines:
    """A watcher that writes one line a stage."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def started(self, stage: str) -> None:
        """Nothing yet: the line comes when the stage is done."""

    def done(self, outcome: Outcome) -> None:
        """The stage's line: name, status, time spent, record."""
        if outcome.ignored:
            self._write(f"{outcome.stage:9} a cache entry does not count: {outcome.ignored}")
        self._write(stage_line(outcome))


def stage_line(outcome: Outcome) -> str:
    """For instance `export    recorded 2026-01-01T00:00:00Z     0.0 s  sha256:0123456789ab  passed`."""
    verdict = outcome.record.parameters.get("passed")
    words = {True: "  passed", False: "  REFUSED"}.get(verdict, "") if isinstance(verdict, bool) else ""
    digest = outcome.record.digest[: len("sha256:") + 12]
    return f"{outcome.stage:9} {outcome.status:30} {outcome.seconds:7.1f} s  {digest}{words}"


def verdict_lines(record: Record) -> list[str]:
    """What a guard or regression verdict holds against the model, one line a finding or case."""
    lines = [finding_line(finding) for finding in record.parameters.get("findings") or ()]
    for case in record.parameters.get("cases") or ():
        mark = "ok  " if case["passed"] else "FAIL"
        lines.append(f"{mark} {case['case']}: {case['metric']} is {case['value']}, allowed {case['allowed']}")
    return lines


def finding_line(finding: Mapping[str, Any]) -> str:
    """For instance `no-pickle  src/m/network.py:3  imports pickle; fix: …`."""
    place = f"{finding['file']}:{finding['line']}" if finding["line"] else finding["file"]
    return f"{finding['rule']}  {place}  {finding['message']}; fix: {finding['fix']}"
