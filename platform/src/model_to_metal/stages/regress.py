"""Regress: may this artifact go on? Candidate, weights, data, golden cases → `RegressionVerdict`.

The model's hook measures; `judge` decides. A refusal is recorded like a pass. A measurement whose
`allowed` is None is reported and cannot fail: it tells how far something lies that depends on the
processor, such as a float32 reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from helix_lineage.formats.canonical import SAFE_INTEGER, Json, dumps, encode_number
from helix_lineage.records.chain import RegressionVerdict
from model_to_metal.errors import StageError
from model_to_metal.stages.interface import Gate, Runs, StageSpec, StageTask, hook

SPEC = StageSpec(
    name="regress",
    record=RegressionVerdict,
    runs=Runs.BUILD,
    environment="build",
    hook=("stages", "evaluate"),
    serves=True,
    reads=("model.toml", "golden/"),
    machine_class=True,
    keeps_files=False,
    gate=Gate("regression gate", "helix regress", "failed cases"),
)

KEYS = frozenset({"case", "metric", "value", "allowed"})


def make(task: StageTask) -> dict[str, Json]:
    """Measure with the hook `evaluate(artifacts, weights, data, golden)` and judge; writes `cases.json`."""
    measured = hook(task.model, "evaluate")(
        task.input("candidate"), task.input("weights"), task.input("data"), task.model / "golden"
    )
    if not isinstance(measured, Sequence):
        raise StageError("the hook [stages] evaluate gives a list of cases", where=str(task.model / "model.toml"))
    verdict = judge(measured)
    (task.output / "cases.json").write_bytes(dumps(verdict["cases"]))
    return verdict


def judge(measured: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """Compare each measured value with what is allowed; pure.

    Gives `passed` and the judged `cases`, each with its own `passed`; beside them `reported`, the
    measurements that are not judged. A NaN on either side fails, and so does a list without a
    judged case: no evidence is not good evidence. Raises StageError for a case that is not
    {case, metric, value, allowed}.
    """
    for case in measured:
        if not isinstance(case, Mapping) or not set(case) >= KEYS:
            raise StageError(f"a case needs {sorted(KEYS)}, not {case!r}")
    cases = [_case(case) for case in measured if case["allowed"] is not None]
    reported = [_measurement(case) for case in measured if case["allowed"] is None]
    return {"passed": bool(cases) and all(case["passed"] for case in cases), "cases": cases, "reported": reported}


def _case(case: Mapping[str, Any]) -> dict[str, Json]:
    value, allowed = _number(case["value"]), _number(case["allowed"])
    return {
        **_measurement(case),
        "allowed": encode_number(allowed),
        # Comparisons with NaN are false, so a NaN cannot pass; max() would have skipped it.
        "passed": value <= allowed and not math.isinf(allowed),
    }


def _measurement(case: Mapping[str, Any]) -> dict[str, Json]:
    value = encode_number(_number(case["value"]))
    return {"case": str(case["case"]), "metric": str(case["metric"]), "value": value}


def _number(value: Any) -> int | float:
    # numpy scalars and booleans become plain numbers; anything else is the hook's mistake.
    if isinstance(value, bool | int):
        return int(value)
    try:
        number = float(value)
        # Canonical JSON holds no whole float from 2**53 on; as an integer it becomes a decimal string.
        return int(number) if abs(number) >= SAFE_INTEGER and number.is_integer() else number
    except (TypeError, ValueError) as error:
        raise StageError(f"a case's value and allowed are numbers, not {value!r}") from error
