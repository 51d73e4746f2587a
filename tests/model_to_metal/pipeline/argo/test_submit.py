"""What a workflow's status says of each stage, as a person and a script read it."""

from __future__ import annotations

from typing import Any

import pytest

from model_to_metal.pipeline.argo.submit import nodes

DIGEST = "sha256:" + "1" * 64


def pod(name: str, phase: str, *, at: int = 0, record: str | None = None, message: str = "") -> dict[str, Any]:
    made = [{"name": "record", "value": record}, {"name": "status", "value": "rebuilt"}] if record else []
    return {
        "id": f"w-{name}", "type": "Pod", "displayName": name, "phase": phase, "message": message,
        "startedAt": f"2026-01-01T00:00:{at:02}Z", "finishedAt": f"2026-01-01T00:00:{at + 5:02}Z",
        "outputs": {"parameters": made},
    }  # fmt: skip


def retry(name: str, *pods: dict[str, Any]) -> dict[str, Any]:
    last = pods[-1]
    return {**last, "id": name, "type": "Retry", "displayName": name, "children": [one["id"] for one in pods]}


def status(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"phase": "Running", "nodes": {row["id"]: row for row in rows}}


def test_a_stage_that_was_tried_twice_shows_the_second_try() -> None:
    first, second = pod("data(0)", "Error", message="pod deleted"), pod("data(1)", "Succeeded", at=10, record=DIGEST)
    found = nodes(status(first, second, retry("data", first, second)))
    assert list(found) == ["data"]
    assert (found["data"].tries, found["data"].record, found["data"].made) == (2, DIGEST, True)
    assert found["data"].pod == "w-data(1)"
    assert "try 2" in found["data"].line()


def test_stages_stand_in_the_order_of_the_workflow() -> None:
    rows = [retry(name, pod(f"{name}(0)", "Running")) for name in ("guard", "data", "compile")]
    assert list(nodes(status(*rows))) == ["data", "compile", "guard"]


def test_a_stage_waits_until_its_pod_runs() -> None:
    waiting, running = pod("data(0)", "Pending"), pod("data(0)", "Running")
    begun = {**retry("data", waiting), "phase": "Running"}
    assert nodes(status({**begun, "children": []}))["data"].phase == "Pending"
    assert nodes(status(waiting, begun))["data"].phase == "Pending"
    assert nodes(status(running, begun))["data"].phase == "Running"


def test_why_a_stage_failed_is_in_its_line() -> None:
    one = pod("guard(0)", "Failed", message=f"main: the guard refused toy ({DIGEST})\nno-pickle  a.py:3")
    line = nodes(status(one, retry("guard", one)))["guard"].line()
    assert "failed" in line
    assert f"the guard refused toy ({DIGEST})" in line
    assert "\n" not in line


@pytest.mark.parametrize("value", [{}, {"phase": "Running"}, {"nodes": {}}, {"nodes": None}])
def test_a_workflow_that_has_not_begun_has_no_stages(value: dict[str, Any]) -> None:
    assert nodes(value) == {}
