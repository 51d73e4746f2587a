"""The Open Inference Protocol v2 over HTTP, with the binary tensor extension; its routes begin with `/v2`.

Tensors come and go as JSON, or after the JSON as raw bytes: then the header
`Inference-Header-Content-Length` holds the JSON's length, and each such tensor the parameter
`binary_data_size`. `tritonclient.http` speaks both, and asks for Triton's configuration of a model
and its repository index. `/v2/helix/receipts/<prediction id>` is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from helix_lineage.formats.typed import Tensor
from helixserve.endpoints import open_inference as protocol, triton
from helixserve.endpoints.http.errors import speak_json
from helixserve.endpoints.http.json_body import NESTING, read_json
from helixserve.endpoints.http.json_lines import refusal
from helixserve.endpoints.http.middleware import CALL
from helixserve.endpoints.http.receipts import PATH as RECEIPTS, giver
from helixserve.errors import HelixServeError, InvalidInputError
from helixserve.execution.core import Answer
from helixserve.model import tensors as plain
from helixserve.model.contract import Task
from helixserve.server import Server

HEADER_LENGTH = "Inference-Header-Content-Length"

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed request."""

    id: str
    tensors: list[Tensor]
    outputs: list[str]
    """Names to answer with."""
    binary: frozenset[str]
    """Those of them that go as raw bytes."""


def application(server: Server) -> Starlette:
    """The ASGI application of one server's tasks."""
    app = Starlette(routes=[Route(RECEIPTS, guarded(giver(server))), *_server_routes(server), *_model_routes(server)])
    speak_json(app)
    return app


def _server_routes(server: Server) -> list[Route]:
    """What is asked of the server as a whole."""

    async def metadata(_: Request) -> Response:
        return JSONResponse(
            {"name": "helix", "version": server.contract.version, "extensions": list(protocol.EXTENSIONS)}
        )

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        server.check_ready()
        return JSONResponse({"ready": True})

    async def index(request: Request) -> Response:
        body = await request.body()
        document = read_json(body) if body else {}
        if not isinstance(document, dict):
            raise InvalidInputError("the body is not a JSON object", where="body")
        return JSONResponse(triton.index(server, ready=_flag(document, "ready", missing=False)))

    return [
        Route("/v2", guarded(metadata)),
        Route("/v2/health/live", guarded(live)),
        Route("/v2/health/ready", guarded(ready)),
        Route("/v2/repository/index", guarded(index), methods=["POST"]),
    ]


def _model_routes(server: Server) -> list[Route]:
    """What is asked of one task, which is a model to this protocol; a version is taken and changes nothing."""

    async def model_metadata(request: Request) -> Response:
        return JSONResponse(describe(server, _task(server, request)))

    async def model_ready(request: Request) -> Response:
        task = _task(server, request)
        server.check_ready()
        return JSONResponse({"name": protocol.model_name(server.contract, task), "ready": True})

    async def config(request: Request) -> Response:
        return JSONResponse(triton.config(server.contract, _task(server, request)))

    async def infer(request: Request) -> Response:
        call = CALL.get()
        call.endpoint = "oip-http"
        task = _task(server, request)
        call.task = task.name
        core = server.core()
        nesting = server.contract.limits.get("nesting", NESTING)
        wanted = parse(task, await request.body(), _header_length(request), nesting)
        return render(server, wanted, await core.infer(task.name, wanted.tensors, call.request_id, call))

    routes: list[Route] = []
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(path, guarded(model_metadata)),
            Route(f"{path}/ready", guarded(model_ready)),
            Route(f"{path}/config", guarded(config)),
            Route(f"{path}/infer", guarded(infer), methods=["POST"]),
        ]
    return routes


def guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with errors as the protocol's JSON."""

    async def safe(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HelixServeError as error:
            return refusal(error, CALL.get())

    return safe


def describe(server: Server, task: Task) -> dict[str, Any]:
    """The protocol's model metadata."""
    return {
        "name": protocol.model_name(server.contract, task),
        "versions": [server.contract.version],
        "platform": triton.platform(server.contract),
        "inputs": [_tensor_metadata(metadata) for metadata in protocol.inputs_of(task)],
        "outputs": [_tensor_metadata(metadata) for metadata in protocol.outputs_of(task)],
    }


def parse(task: Task, body: bytes, header_length: str | None, nesting: int = NESTING) -> InferRequest:
    """Read a request's JSON and what follows it. Raises InvalidInputError."""
    size = len(body) if header_length is None else _size("body", header_length, len(body))
    document = read_json(body[:size], nesting)
    if not isinstance(document, dict):
        raise InvalidInputError("the body is not a JSON object", where="body")
    raw = _Raw(body[size:])
    tensors = [_tensor(entry, raw) for entry in _objects(document, "inputs")]
    if raw.left:
        raise InvalidInputError(f"{raw.left} bytes follow the JSON that no tensor claims", where="binary_data_size")
    parameters = _parameters(document)
    all_binary = _flag(parameters, "binary_data_output", missing=False)
    requested = {}
    for entry in _objects(document, "outputs"):
        name, options = _name(entry, "outputs"), _parameters(entry)
        requested[name] = _flag(options, "binary_data", missing=all_binary)
        protocol.check_parameters(name, options)
    outputs = protocol.wanted_outputs(task, list(requested))
    return InferRequest(
        id=_id(document),
        tensors=protocol.with_parameters(task, tensors, parameters),
        outputs=outputs,
        binary=frozenset(name for name in outputs if requested.get(name, all_binary)),
    )


def render(server: Server, wanted: InferRequest, answer: Answer) -> Response:
    """The protocol's response; raw tensors after the JSON."""
    outputs, raw = [], []
    for tensor in protocol.stack(answer):
        if tensor.name not in wanted.outputs:
            continue
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if tensor.name in wanted.binary:
            raw.append(protocol.to_raw(tensor))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = plain.unpack(tensor)
        outputs.append(entry)
    document = {
        "model_name": protocol.model_name(server.contract, answer.task),
        "model_version": server.contract.version,
        "id": wanted.id or answer.request_id,
        "parameters": protocol.parameters_of(answer),
        "outputs": outputs,
    }
    if not raw:
        return JSONResponse(document)
    head = json.dumps(document).encode()
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(b"".join([head, *raw]), headers=headers, media_type="application/octet-stream")


class _Raw:
    """The bytes after the JSON, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._offset

    def take(self, size: int) -> bytes:
        start, self._offset = self._offset, self._offset + size
        return self._data[start : self._offset]


def _task(server: Server, request: Request) -> Task:
    return protocol.find_task(server.contract, request.path_params["model"], request.path_params.get("version", ""))


def _tensor(entry: Mapping[str, Any], raw: _Raw) -> Tensor:
    name = _name(entry, "inputs")
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or not isinstance(shape, list):
        raise InvalidInputError(f"{name} needs a datatype and a shape", where=name)
    parameters, data = _parameters(entry), entry.get("data")
    size = parameters.pop("binary_data_size", None)
    protocol.check_parameters(name, parameters)
    if size is None:
        if data is None:
            raise InvalidInputError(f"{name} has no data", where=name)
        return protocol.from_elements(name, datatype, shape, plain.flatten(data))
    if data is not None:
        raise InvalidInputError(f"{name} has data and binary_data_size; send one of them", where=name)
    return protocol.from_raw(name, datatype, shape, raw.take(_size(name, size, raw.left)))


def _flag(parameters: dict[str, Any], name: str, *, missing: bool) -> bool:
    """Take a flag out of the parameters."""
    value = parameters.pop(name, None)
    if value is None:
        return missing
    if not isinstance(value, bool):
        raise InvalidInputError(f"the parameter {name} is true or false", where=name)
    return value


def _header_length(request: Request) -> str | None:
    given = request.headers.getlist(HEADER_LENGTH)
    if len(given) > 1:
        raise InvalidInputError(f"{HEADER_LENGTH} is given {len(given)} times", where=HEADER_LENGTH)
    return given[0] if given else None


def _id(document: Mapping[str, Any]) -> str:
    found = _optional(document, "id", "")
    if not isinstance(found, str):
        raise InvalidInputError("the id is not text", where="id")
    return found


def _size(name: str, value: object, most: int) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        raise InvalidInputError(f"{name}: {str(value)[:20]!r} is not a size within the body", where=name)
    return number


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = _optional(document, key, [])
    if not isinstance(found, list) or any(not isinstance(entry, dict) for entry in found):
        raise InvalidInputError(f"{key} is not a list of objects", where=key)
    return found


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    found = _optional(entry, "parameters", {})
    if not isinstance(found, dict):
        raise InvalidInputError("parameters is not an object", where="parameters")
    return dict(found)


def _optional(entry: Mapping[str, Any], key: str, missing: Any) -> Any:
    """A field that may be left out, or null as clients that fill every field send it."""
    found = entry.get(key)
    return missing if found is None else found


def _name(entry: Mapping[str, Any], where: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInputError("a tensor has no name", where=where)
    return name


def _tensor_metadata(metadata: protocol.Metadata) -> dict[str, Any]:
    return {"name": metadata.name, "datatype": metadata.datatype, "shape": list(metadata.shape)}
