"""The Open Inference Protocol's routes as OpenAPI 3.1 paths.

One path a task and method, written out: a client, or a fuzzer, sees each tensor's name, type and shape.
"""

from __future__ import annotations

from typing import Any

from helixserve.endpoints import open_inference as protocol
from helixserve.errors import ContractError
from helixserve.model import tensors as plain
from helixserve.model.contract import Contract, Task

_TEXT = {"type": "string"}
_RAW = {"type": "string", "format": "binary", "description": "The JSON, then the tensors that were asked for raw."}
ELEMENTS = {"BOOL": "boolean", "BYTES": "string", "FP16": "number", "FP32": "number", "FP64": "number"}
_REFUSALS = {
    "400": "The request cannot be understood, or a value is out of range.",
    "404": "No such model, version or task.",
    "405": "Another method is served here.",
    "413": "A limit of model.toml is exceeded.",
    "415": "The body's media type is not served.",
    "429": "Too many requests are waiting.",
    "503": "The release is not verified, the log cannot be written, or the server is stopping.",
}
_INDEX_REQUEST = {"type": "object", "properties": {"ready": {"type": ["boolean", "null"]}}}
_INDEX = {
    "type": "array",
    "items": {"type": "object", "properties": dict.fromkeys(("name", "version", "state", "reason"), _TEXT)},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "The whole sentence."},
        "where": {"type": ["string", "null"], "description": "The field concerned."},
        "fix": {"type": ["string", "null"], "description": "What to do about it."},
    },
}


def paths(contract: Contract) -> dict[str, dict[str, Any]]:
    """Path → method → operation."""
    live = {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}}
    ready = {
        "type": "object",
        "required": ["ready"],
        "properties": {"name": _TEXT, "ready": {"type": "boolean"}},
    }
    names = {"type": "array", "items": _TEXT}
    server = {"type": "object", "properties": {"name": _TEXT, "version": _TEXT, "extensions": names}}
    found: dict[str, dict[str, Any]] = {
        "/v2": {"get": _operation("What this server is.", server)},
        "/v2/health/live": {"get": _operation("Whether the process runs.", live)},
        "/v2/health/ready": {"get": _operation("Whether requests should be sent here.", ready)},
    }
    index = _operation("The models that are served, and whether they are ready.", _INDEX, _INDEX_REQUEST)
    index["requestBody"] |= {"required": False}
    index["requestBody"]["content"]["application/json"]["example"] = {"ready": False}
    found["/v2/repository/index"] = {"post": index}
    for task in contract.tasks.values():
        model = f"/v2/models/{protocol.model_name(contract, task)}"
        for path in (model, f"{model}/versions/{contract.version}"):
            found[path] = {"get": _operation(f"The tensors of: {task.summary}", {"type": "object"})}
            found[f"{path}/ready"] = {"get": _operation("Whether the model is ready.", ready)}
            found[f"{path}/config"] = {"get": _operation("Triton's configuration of the model.", {"type": "object"})}
            infer = _operation(task.summary, _answer(task), _request(task))
            if (given := example(contract, task)) is not None:
                infer["requestBody"]["content"]["application/json"]["example"] = _asked(task, given)
            infer["responses"]["200"]["content"]["application/octet-stream"] = {"schema": _RAW}
            found[f"{path}/infer"] = {"post": infer}
    return found


def example(contract: Contract, task: Task) -> dict[str, Any] | None:
    """The JSON request of a task that `[examples]` of the contract gives, or None. Raises ContractError."""
    found = contract.document.get("examples", {}).get(task.name)
    if found is not None and not (isinstance(found, dict) and set(found) <= set(task.inputs)):
        raise ContractError("an example holds inputs of its task", where=f"model.toml [examples] {task.name}")
    return found


def refusals() -> dict[str, Any]:
    """Status → response, of what any route may refuse with."""
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": said, "content": content} for status, said in _REFUSALS.items()}


def _operation(summary: str, answer: dict[str, Any], request: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": answer}}
    made: dict[str, Any] = {
        "tags": ["Open Inference Protocol"],
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": content}, **refusals()},
    }
    if request is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return made


def _asked(task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """A JSON request in the protocol's form: options among the parameters, the rest as tensors."""
    inputs, parameters = [], {}
    for name, value in given.items():
        field = task.inputs[name]
        if field.shape == (1,) and not field.required:
            parameters[name] = value
        else:
            tensor = plain.from_value(name, field.datatype, value, rank=len(field.shape))
            inputs.append(
                {"name": name, "datatype": field.datatype, "shape": list(tensor.shape), "data": plain.unpack(tensor)}
            )
    return {"inputs": inputs, "parameters": parameters}


def _request(task: Task) -> dict[str, Any]:
    scalars = {
        field.name: {"type": [ELEMENTS.get(field.datatype, "integer"), "null"], "description": field.summary}
        for field in task.inputs.values()
        if field.shape == (1,)
    }
    flags = {"binary_data_output": {"type": ["boolean", "null"]}}
    names = [metadata.name for metadata in protocol.outputs_of(task)]
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "enum": names},
            "parameters": {"type": ["object", "null"], "properties": {"binary_data": {"type": ["boolean", "null"]}}},
        },
    }
    return {
        "type": "object",  # `inputs` may be missing: parameters give scalars
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"], "properties": scalars | flags},
            "inputs": {"type": ["array", "null"], "items": {"anyOf": [_tensor(m) for m in protocol.inputs_of(task)]}},
            "outputs": {"type": ["array", "null"], "items": output},
        },
    }


def _answer(task: Task) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": {"anyOf": [_tensor(m) for m in protocol.outputs_of(task)]}},
        },
    }


def _tensor(metadata: protocol.Metadata) -> dict[str, Any]:
    rank = len(metadata.shape)
    extents = {"type": "integer", "minimum": 0}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"type": "string", "enum": [metadata.name]},
            "datatype": {"type": "string", "enum": [metadata.datatype]},
            "shape": {"type": "array", "items": extents, "minItems": rank, "maxItems": rank},
            "data": {"type": "array", "items": {"type": ELEMENTS.get(metadata.datatype, "integer")}},
        },
    }
