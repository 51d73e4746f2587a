from __future__ import annotations

import pytest

from helix_lineage.records.chain import DataCommit, GuardVerdict
from model_to_metal.pipeline.engine import Outcome
from model_to_metal.pipeline.progress import ProgressLines, stage_line

DIGEST = "sha256:" + "1" * 64


def test_a_stage_is_one_line_with_its_status_and_time() -> None:
    record = DataCommit(parameters={"model": "toy", "dvc_lock": DIGEST, "files": []})
    made = stage_line(Outcome("data", record, rebuilt=True, time="2026-01-01T00:00:00Z", seconds=6.25))
    found = stage_line(Outcome("data", record, rebuilt=False, time="2026-01-01T00:00:00Z", seconds=0.0))
    assert "rebuilt" in made
    assert "6.2 s" in made
    assert record.digest[:19] in made
    assert "recorded 2026-01-01T00:00:00Z" in found


@pytest.mark.parametrize(("passed", "word"), [(True, "passed"), (False, "REFUSED")])
def test_a_gates_line_says_its_verdict(passed: bool, word: str) -> None:
    parameters = {"model": "toy", "source": DIGEST, "locks": {}, "passed": passed, "findings": []}
    lines: list[str] = []
    listener = ProgressLines(lines.append)
    listener.started("guard")
    listener.done(Outcome("guard", GuardVerdict(parameters=parameters), rebuilt=True, time="", seconds=1.0))
    (line,) = lines
    assert line.endswith(word)
