"""Stock clients of every endpoint: each asks a server and gives the typed bytes that the wire answer means."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import bentoml
import httpx
import numpy as np
import tritonclient.grpc
import tritonclient.http

from helix_lineage.formats.typed import Tensor, encode
from helixserve.model import tensors
from helixserve.model.contract import Contract, Task

Items = list[tuple[str, bytes]]
"""Prediction id and typed bytes of each item."""


@dataclass(frozen=True)
class Address:
    """Where a server answers, and what it serves."""

    http: str
    """Base URL."""
    grpc: str
    """HOST:PORT."""
    contract: Contract


def typed(task: Task, values: Mapping[str, Any]) -> bytes:
    """The typed bytes of one item, from what a client decoded."""
    made = []
    for name, field in task.outputs.items():
        value = values[name]
        if isinstance(value, np.ndarray) and field.datatype != "BYTES":
            made.append(tensors.from_array(name, value))
        elif isinstance(value, np.ndarray):
            data = tuple(item if isinstance(item, bytes) else item.encode() for item in value.reshape(-1).tolist())
            made.append(Tensor(name, "BYTES", value.shape, data))
        else:
            made.append(tensors.from_value(name, field.datatype, value, rank=len(field.shape)))
    return encode(made)


def by_bentoml(server: Address, task: str, request: Mapping[str, Any]) -> Items:
    """BentoML's own client."""
    with bentoml.SyncHTTPClient(server.http) as client:
        answer = getattr(client, task)(**request)
    return [(item["prediction_id"], typed(server.contract.task(task), item)) for item in answer["predictions"]]


def by_json(server: Address, task: str, request: Mapping[str, Any]) -> Items:
    """Plain JSON over HTTP."""
    response = httpx.post(f"{server.http}/{task}", json=dict(request), timeout=300)
    rows = response.raise_for_status().json()["predictions"]
    return [(item["prediction_id"], typed(server.contract.task(task), item)) for item in rows]


def triton_inputs(module: Any, fields: Task, request: Mapping[str, Any], more: Mapping[str, Any]) -> list[Any]:
    """A request as the inputs of one of Triton's clients."""
    inputs = []
    for name, value in request.items():
        field = fields.inputs[name]
        tensor = tensors.from_value(name, field.datatype, value, rank=len(field.shape))
        made = module.InferInput(name, list(tensor.shape), field.datatype)
        array = (
            np.array(tensor.data, dtype=np.object_).reshape(tensor.shape)
            if field.datatype == "BYTES"
            else tensors.to_array(tensor)
        )
        made.set_data_from_numpy(array, **more)
        inputs.append(made)
    return inputs


def by_lines(server: Address, task: str, request: Mapping[str, Any]) -> Items:
    """The stream of JSON lines over HTTP."""
    with httpx.stream("POST", f"{server.http}/{task}/stream", json=dict(request), timeout=300) as response:
        rows = [json.loads(line) for line in response.raise_for_status().iter_lines()]
    assert [row["index"] for row in rows] == list(range(rows[0]["count"]))
    items = [row["prediction"] for row in rows]
    return [(item["prediction_id"], typed(server.contract.task(task), item)) for item in items]


def by_triton_stream(server: Address, task: str, request: Mapping[str, Any]) -> Items:
    """Triton's client: a gRPC stream, an item a response."""
    fields = server.contract.task(task)
    given: list[tuple[Any, Any]] = []
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: given.append((result, error)))
        client.async_stream_infer(
            f"{server.contract.name}-{task}", triton_inputs(tritonclient.grpc, fields, request, {})
        )
        client.stop_stream()
    items: Items = []
    for result, error in given:
        assert error is None, error
        values = {name: result.as_numpy(name)[0] for name in fields.outputs}
        items.append((result.as_numpy("prediction_id")[0].decode(), typed(fields, values)))
    assert given[-1][0].get_response().parameters["triton_final_response"].bool_param
    return items


def by_triton(server: Address, task: str, request: Mapping[str, Any], *, wire: str) -> Items:
    """Triton's client: Open Inference Protocol v2 over gRPC, or HTTP with JSON or binary tensors."""
    module: Any = tritonclient.grpc if wire == "grpc" else tritonclient.http
    fields = server.contract.task(task)
    more: dict[str, Any] = {} if wire == "grpc" else {"binary_data": wire == "binary"}
    inputs = triton_inputs(module, fields, request, more)
    names = [*fields.outputs, "prediction_id"]
    outputs = [module.InferRequestedOutput(name, **more) for name in names]
    address = server.grpc if wire == "grpc" else server.http.removeprefix("http://")
    with module.InferenceServerClient(address) as client:
        answer = client.infer(f"{server.contract.name}-{task}", inputs, outputs=outputs)
    stacked = {name: answer.as_numpy(name) for name in names}
    ids = [item if isinstance(item, str) else item.decode() for item in stacked.pop("prediction_id").tolist()]
    return [(ids[i], typed(fields, {name: array[i] for name, array in stacked.items()})) for i in range(len(ids))]


ENDPOINTS: dict[str, Callable[[Address, str, Mapping[str, Any]], Items]] = {
    "bentoml client": by_bentoml,
    "plain json": by_json,
    "oip http json": lambda server, task, request: by_triton(server, task, request, wire="json"),
    "oip http binary": lambda server, task, request: by_triton(server, task, request, wire="binary"),
    "oip grpc": lambda server, task, request: by_triton(server, task, request, wire="grpc"),
    "json lines": by_lines,
    "grpc stream": by_triton_stream,
}
