"""Guard: may this source go on? Source tree, contract, locks, compiled engine → `GuardVerdict`.

Runs in the serve environment, in a sandbox. Without the engine only the rules that
read are applied; `helix check` does that first, because it takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from helix_lineage.formats.canonical import Json, dumps
from helix_lineage.records.chain import GuardVerdict
from model_to_metal.guardrails import contract, locks_in_step, no_pickle, serves
from model_to_metal.guardrails.finding import GuardFinding
from model_to_metal.stages.interface import Gate, Runs, StageSpec, StageTask

SPEC = StageSpec(
    name="guard",
    record=GuardVerdict,
    runs=Runs.SERVE,
    environment="serve",
    parameters=("model", "source", "locks"),
    source=("tree",),
    hook=("serve", "model"),
    serves=True,
    shown=("tree", "packages"),
    target=False,
    # findings.json repeats the parameters: it is for people who look into the stage's folder.
    keeps_files=False,
    gate=Gate("guard", "helix check", "findings"),
)

READING = (contract, locks_in_step, no_pickle)
"""Rules that only read the source."""


def make(task: StageTask) -> dict[str, Json]:
    """Apply the rules; writes `findings.json`."""
    findings = [finding for rule in READING for finding in rule.check(task.model)]
    applied = [rule.RULE for rule in READING]
    # A model that does not pass by reading is not run.
    if "engine" in task.inputs and not findings:
        applied.append(serves.RULE)
        findings = serves.check(task.model, task.inputs["engine"])
    verdict = judge(findings, applied)
    (task.output / "findings.json").write_bytes(dumps(verdict["findings"]))
    return verdict


def judge(findings: Sequence[GuardFinding], applied: Sequence[str]) -> dict[str, Json]:
    """The verdict: passed when rules were applied and none found anything. Pure."""
    return {
        "passed": bool(applied) and not findings,
        "rules": list(applied),
        "findings": [finding.to_json() for finding in sorted(findings)],
    }
