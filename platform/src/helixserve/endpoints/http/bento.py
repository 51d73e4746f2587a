"""The BentoML endpoint: typed JSON, one route a task.

A model's `service.py` makes a `@bentoml.service` of a subclass of `HttpEndpoints`:

    CONTRACT = Contract.load(Path(__file__).parents[2] / "model.toml")

    @bentoml.service(**options(CONTRACT))
    class Tiny(HttpEndpoints):
        server = Server(CONTRACT)
        double = route(server, "double")
        double_stream = stream_route(server, "double")

Request and response models come from the contract, so `/schema.json` and `bentoml.SyncHTTPClient`
know every field; values are checked by the same code as at the other endpoints, so that an error is
the same sentence everywhere. A scalar stands for shape [1], nested lists for others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import bentoml
from _bentoml_sdk import Service
from bentoml._internal.server.http.access import AccessLogMiddleware
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from helix_lineage.formats.typed import Tensor
from helixserve.endpoints.http import docs
from helixserve.endpoints.http.errors import speak_json
from helixserve.endpoints.http.json_body import NESTING, read_json
from helixserve.endpoints.http.json_lines import MEDIA_TYPE, JsonLinesResponse, refusal
from helixserve.endpoints.http.middleware import CALL, RequestMiddleware
from helixserve.endpoints.http.open_inference import HEADER_LENGTH, application
from helixserve.errors import HelixServeError, InvalidInputError
from helixserve.execution.core import Answer, Item
from helixserve.model import tensors as plain
from helixserve.model.contract import Contract, Field as TensorField, Task
from helixserve.process import die_with_parent
from helixserve.server import Server

if TYPE_CHECKING:
    from helixserve.endpoints.grpc.server import GrpcEndpoints

_LEFT_OUT = {
    # Answers 504 while the work goes on, hides exceptions until then, and keeps a timer of every request for as
    # long. Clients have deadlines of their own.
    TimeoutMiddleware,
    # `helixserve.observe` does these for all endpoints at once. BentoML's metrics also keep a row for every path that
    # an untrusted party makes up, for ever.
    AccessLogMiddleware,
    OpenTelemetryMiddleware,
    RunnerTrafficMetricsMiddleware,
}

_PAGES = ("static_content", "index", "openapi-spec")
"""BentoML's routes of its own page, which ours replaces."""

_JSON_TYPES = {"BOOL": "boolean", "BYTES": "string", "FP16": "number", "FP32": "number", "FP64": "number"}


class RawRequest(BaseModel):
    """A request as it came: the platform parses it, with its own messages."""

    body: bytes


class HttpEndpoints:
    """Base of a model's service: starts and stops the server and its other endpoints."""

    server: ClassVar[Server]

    _grpc: GrpcEndpoints

    @bentoml.on_startup  # type: ignore[untyped-decorator]  # bentoml publishes no types
    async def helix_start(self) -> None:
        """Verify, load and open the gRPC endpoint; runs in the worker before it accepts."""
        die_with_parent()
        # Only where it serves: the module registers protobuf names that a client's stubs register too.
        from helixserve.endpoints.grpc.server import GrpcEndpoints  # noqa: PLC0415

        self._grpc = GrpcEndpoints(self.server)
        await self._grpc.start()  # first: a port that is taken must not leave an empty shard behind
        await self.server.start()
        await self._grpc.tell()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]  # bentoml publishes no types
    async def helix_stop(self) -> None:
        """Drain what was accepted and close the shard; runs on TERM, after HTTP has drained."""
        await self._grpc.stop()
        await self.server.stop()
        await asyncio.to_thread(self.server.observer.close)

    async def __metrics__(self, others: str) -> str:
        """BentoML's `/metrics`: whatever it has, and ours."""
        return others + self.server.observer.metrics.text(self.server.state())

    async def __is_ready__(self) -> bool:
        """BentoML's `/readyz`; 503 with the reason until the release is verified."""
        try:
            self.server.check_ready()
        except HelixServeError as error:
            raise HTTPException(503, detail=str(error)) from None
        return True


class HelixService(Service):  # type: ignore[misc]  # bentoml publishes no types
    """A BentoML service with the gate in front of its routes, the Open Inference Protocol and our pages beside them."""

    def to_asgi(self, is_main: bool = True) -> Starlette:
        """The application that BentoML's worker runs."""
        server: Server = self.inner.server
        # At the root: a mount at /v2 would not answer `GET /v2` itself. Unknown paths fall through to BentoML.
        self.mount_asgi_app(application(server), path="/", name="open_inference")
        # Before BentoML's own index, whose page loads code from elsewhere, and its `/docs.json`.
        routed = {method.route for method in self.apis.values()}
        self.mount_asgi_app(docs.application(server.contract, routed), path="/", name="docs")
        self._allow_origins(server)
        observer = server.observer
        observer.configure(server.contract)
        limit = server.contract.limits["request_bytes"]
        self.add_asgi_middleware(
            RequestMiddleware, limit=limit, budget=server.budget, began=observer.began, ended=observer.ended
        )
        app: Starlette = super().to_asgi(is_main=is_main)
        app.user_middleware = [entry for entry in app.user_middleware if entry.cls not in _LEFT_OUT]
        app.router.routes = [entry for entry in app.router.routes if getattr(entry, "name", "") not in _PAGES]
        speak_json(app)
        return app

    def _allow_origins(self, server: Server) -> None:
        """Let the pages of the origins that the settings name ask; around the gate, so that they read refusals too."""
        if server.settings.cors_origins:
            self.add_asgi_middleware(
                CORSMiddleware,
                allow_origins=server.settings.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("authorization", "content-encoding", "content-type", HEADER_LENGTH, "traceparent"),
                expose_headers=("retry-after", "x-request-id", HEADER_LENGTH),
            )


def options(contract: Contract) -> dict[str, Any]:
    """Arguments of `@bentoml.service`: one worker, for it alone owns the shard and the compute thread."""
    return {"name": contract.name, "workers": 1, "service_class": HelixService}


def route(server: Server, task: str) -> Any:
    """The `@bentoml.api` of a task, at `/<task>`."""
    described = server.contract.task(task)

    async def endpoint(self: HttpEndpoints, body: bytes) -> Response:  # noqa: ARG001  # BentoML calls it as a method
        return await answer(server, described, body)

    endpoint.__name__ = endpoint.__qualname__ = task
    endpoint.__doc__ = described.summary
    request, response = request_model(described), response_model(described)
    return bentoml.api(route=f"/{task}", input_spec=request, output_spec=response)(endpoint)


def stream_route(server: Server, task: str) -> Any:
    """The `@bentoml.api` that streams a task's items, at `/<task>/stream`."""
    described = server.contract.task(task)

    async def endpoint(self: HttpEndpoints, body: bytes) -> Response:  # noqa: ARG001  # BentoML calls it as a method
        return await lines(server, described, body)

    endpoint.__name__ = endpoint.__qualname__ = f"{task}_stream"
    endpoint.__doc__ = f"{described.summary} One JSON object a line, each as soon as its item is recorded."
    request, response = request_model(described), stream_model(described)
    return bentoml.api(route=f"/{task}/stream", input_spec=request, output_spec=response)(endpoint)


async def answer(server: Server, task: Task, body: bytes) -> Response:
    """Parse a request, ask the core, and give the JSON of answer or error."""
    call = CALL.get()
    call.endpoint, call.task = "json", task.name
    try:
        core, nesting = server.core(), _nesting(server)
        given = await core.infer(task.name, parse(task, body, nesting), call.request_id, call)
        return JSONResponse(render(given))
    except HelixServeError as error:
        return refusal(error, call)


async def lines(server: Server, task: Task, body: bytes) -> Response:
    """Parse a request, and give the stream of its items, or the JSON of an error."""
    call = CALL.get()
    call.endpoint, call.task = "json-stream", task.name
    try:
        core, nesting = server.core(), _nesting(server)
        return JsonLinesResponse(core.stream(task.name, parse(task, body, nesting), call.request_id, call), render_item)
    except HelixServeError as error:
        return refusal(error, call)


def _nesting(server: Server) -> int:
    return server.contract.limits.get("nesting", NESTING)


def parse(task: Task, body: bytes, nesting: int = NESTING) -> list[Tensor]:
    """The tensors of a JSON object. null means: not given. Raises InvalidInputError."""
    value = read_json(body, nesting)
    if not isinstance(value, dict):
        raise InvalidInputError("the body is not a JSON object", where="body", fix=f"fields: {', '.join(task.inputs)}")
    found = []
    for name, given in value.items():
        field = task.inputs.get(name)
        if field is None:
            raise InvalidInputError(
                f"{task.name} has no input {name[:80]!r}",
                where=name[:80],
                fix=f"known inputs: {', '.join(task.inputs)}",
            )
        if given is not None:
            found.append(_tensor(field, given))
    return found


def _tensor(field: TensorField, given: object) -> Tensor:
    """A field as the schema describes it. Raises InvalidInputError."""
    single = field.shape == (1,)
    if isinstance(given, list) == single:
        what = f"{field.name} must be {'one value' if single else 'a list'}"
        raise InvalidInputError(what, where=field.name, fix="/docs describes the fields")
    return plain.from_value(field.name, field.datatype, given, rank=len(field.shape))


def render(given: Answer) -> dict[str, Any]:
    """The JSON of an answer."""
    shapes = {name: field.shape for name, field in given.task.outputs.items()}
    return {
        "request_id": given.request_id,
        "seed": given.seed,
        "predictions": [
            {"prediction_id": prediction, **{item.name: plain.to_value(item, shapes[item.name]) for item in items}}
            for prediction, items in zip(given.prediction_ids, given.items, strict=True)
        ],
    }


def render_item(item: Item) -> dict[str, Any]:
    """The JSON of one item of a stream."""
    rendered = render(item.answer)
    (prediction,) = rendered.pop("predictions")
    return {**rendered, "index": item.index, "count": item.count, "prediction": prediction}


def request_model(task: Task) -> type[BaseModel]:
    """What `/schema.json` says of a task's request; checks nothing, for `parse` does."""
    fields = {name: _described(field, optional=not field.required) for name, field in task.inputs.items()}
    return _made(f"{task.name.title()}Request", _Request, fields)


def response_model(task: Task) -> type[BaseModel]:
    """What the schemas say of a task's answer."""
    given = {**_common(), "predictions": (list[_prediction(task)], Field(description="One an item."))}  # type: ignore[misc]  # made here
    return _made(f"{task.name.title()}Response", BaseModel, given)


def stream_model(task: Task) -> type[BaseModel]:
    """What the schemas say of one line of a task's stream."""
    given = {
        **_common(),
        "index": (int, Field(description="The item's number, from 0.")),
        "count": (int, Field(description="Items of the whole request.")),
        "prediction": (_prediction(task), Field(description="The item.")),
    }
    return _made(f"{task.name.title()}Line", _Line, given)


def _common() -> dict[str, tuple[Any, Any]]:
    return {
        "request_id": (str, Field(description="32 hex digits; also in the header x-request-id.")),
        "seed": (_SEED, Field(description="The root seed that was used; null where nothing is drawn.")),
    }


def _prediction(task: Task) -> type[BaseModel]:
    fields = {name: _described(field, optional=False) for name, field in task.outputs.items()}
    return _made(
        f"{task.name.title()}Prediction", BaseModel, {"prediction_id": (str, Field(description=_ID)), **fields}
    )


_SEED: Any = Annotated[int | None, WithJsonSchema({"type": "integer", "nullable": True})]  # as OpenAPI 3.0 says it
_ID = "Trace and replay this item by this id."


class _Request(bentoml.IODescriptor):  # type: ignore[misc]  # bentoml publishes no types
    model_config = ConfigDict(protected_namespaces=())

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> RawRequest:  # noqa: ARG003  # JSON only, whatever was sent
        """Hand the body on unparsed."""
        return RawRequest.model_construct(body=await request.body())


class _Line(bentoml.IODescriptor):  # type: ignore[misc]  # bentoml publishes no types
    media_type: ClassVar[str] = MEDIA_TYPE


def _made(title: str, base: type[BaseModel], fields: dict[str, tuple[Any, Any]]) -> type[BaseModel]:
    made: type[BaseModel] = create_model(title, __base__=base, **fields)  # type: ignore[call-overload]  # fields by name
    return made


def _described(field: TensorField, *, optional: bool) -> tuple[Any, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPES.get(field.datatype, "integer")}
    if field.shape != (1,):
        for _ in field.shape:
            schema = {"type": "array", "items": schema}
    if optional:
        schema = {**schema, "nullable": True}  # as OpenAPI 3.0 says it: there is no type "null" there
    default: Any = None if optional else ...
    if field.default is not None:
        default = plain.to_value(field.default, field.shape)
    return Annotated[Any, WithJsonSchema(schema)], Field(default, description=field.summary)
