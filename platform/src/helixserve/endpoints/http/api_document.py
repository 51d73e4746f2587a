"""The OpenAPI 3.1 document of a server: every path of ours, described from the contract.

The table `[examples]` of `model.toml` holds one JSON request a task, which this document shows in each
endpoint's form, so that what `/docs` offers to send is answered:

    [examples]
    double = { values = [1, 2], seed = 7 }
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from helixserve.endpoints.http import openapi as protocol, receipts
from helixserve.endpoints.http.json_lines import MEDIA_TYPE
from helixserve.model import tensors as plain
from helixserve.model.contract import Contract, Field, Task

_TEXT = {"type": "string"}
_SERVER = {
    "/livez": "Whether the process runs.",
    "/healthz": "The same.",
    "/readyz": "Whether requests should be sent here; 503 with the reason when not.",
    "/metrics": "Prometheus metrics.",
}


def document(contract: Contract, routed: Collection[str]) -> dict[str, Any]:
    """The whole document; `routed` are the task paths that the service has, for it need not stream."""
    paths: dict[str, Any] = {}
    for task in contract.tasks.values():
        for path, media_type, answer in (
            (f"/{task.name}", "application/json", _answer(task)),
            (f"/{task.name}/stream", MEDIA_TYPE, _line(task)),
        ):
            if path in routed:
                paths[path] = {"post": _operation(contract, task, path, media_type, answer)}
    paths |= protocol.paths(contract)
    paths[receipts.PATH] = {"get": {"tags": ["Receipts"], **receipts.DESCRIBED}}
    paths |= {path: {"get": _plain(summary)} for path, summary in _SERVER.items()}
    summary = contract.document.get("summary", "")
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.name, "version": contract.version, "description": str(summary)},
        "paths": paths,
    }


def _operation(contract: Contract, task: Task, path: str, media_type: str, answer: dict[str, Any]) -> dict[str, Any]:
    request = {
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in task.inputs.values() if field.required],
        "properties": {field.name: _schema(field, nullable=not field.required) for field in task.inputs.values()},
    }
    example = protocol.example(contract, task)
    content = {"schema": request} | ({} if example is None else {"example": example})
    streamed = " One JSON object a line, each as soon as its item is recorded." if path.endswith("/stream") else ""
    return {
        "tags": ["JSON"],
        "summary": task.summary + streamed,
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": {"description": "OK", "content": {media_type: {"schema": answer}}},
            **protocol.refusals(),
        },
    }


def _plain(summary: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": _TEXT}}
    return {"tags": ["Server"], "summary": summary, "responses": {"200": {"description": "OK", "content": content}}}


def _schema(field: Field, *, nullable: bool) -> dict[str, Any]:
    bounds = {"minimum": field.minimum, "maximum": field.maximum}
    schema: dict[str, Any] = {"type": protocol.ELEMENTS.get(field.datatype, "integer")}
    schema |= {name: value for name, value in bounds.items() if value is not None}
    if field.shape != (1,):
        for _ in field.shape:
            schema = {"type": "array", "items": schema}
    if nullable:
        schema["type"] = [schema["type"], "null"]
    if field.default is not None:
        schema["default"] = plain.to_value(field.default, field.shape)
    return {**schema, "description": field.summary}


def _common() -> dict[str, Any]:
    return {
        "request_id": {**_TEXT, "description": "32 hex digits; also in the header x-request-id."},
        "seed": {"type": ["integer", "null"], "description": "The root seed; null where nothing is drawn."},
    }


def _prediction(task: Task) -> dict[str, Any]:
    outputs = {field.name: _schema(field, nullable=False) for field in task.outputs.values()}
    named = {"prediction_id": {**_TEXT, "description": "Trace and replay this item by this id."}}
    return _whole({**named, **outputs})


def _answer(task: Task) -> dict[str, Any]:
    return _whole({**_common(), "predictions": {"type": "array", "items": _prediction(task)}})


def _line(task: Task) -> dict[str, Any]:
    numbers = {
        "index": {"type": "integer", "description": "The item's number, from 0."},
        "count": {"type": "integer", "description": "Items of the whole request."},
    }
    # The last line may be an error instead, as the refusals describe it.
    return {"type": "object", "properties": {**_common(), **numbers, "prediction": _prediction(task)}}


def _whole(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}
