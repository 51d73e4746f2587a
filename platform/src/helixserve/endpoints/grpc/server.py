"""The gRPC endpoint: Open Inference Protocol v2, gRPC health v1 and reflection, in HTTP's process and event loop.

A client may ping once a second, with or without calls: balancers and proxies between take a silent
connection for a dead one.

`ModelStreamInfer` is Triton's: many requests on one stream, answered in their order, an item a
response as soon as it is recorded. An error is a response, too, and the stream goes on. A call
that is cancelled, or past its deadline, stops computing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from helixserve.endpoints import open_inference as protocol, triton
from helixserve.endpoints.connections import grpc_options
from helixserve.endpoints.grpc import codec, open_inference_pb2 as pb, reflection
from helixserve.endpoints.grpc.malformed import ReadBounded, details
from helixserve.errors import GoneError, HelixServeError, NotReadyError, TooLargeError
from helixserve.execution.budget import FRAMING
from helixserve.execution.core import STALL_S
from helixserve.model.contract import Task
from helixserve.observe.call import Call
from helixserve.server import Server

logger = logging.getLogger("helixserve.grpc")

SERVICE = "inference.GRPCInferenceService"
_GRACE_S = 3600.0
"""How long accepted calls may take after TERM; an orchestrator's own limit is shorter."""
_LAST_S = 1.0
"""How long what is open may go on when every answer has left: it only watches."""
_PINGS = (
    # gRPC's own default is one ping in five minutes, and an end to the connection, with all its calls, at the third
    # that comes sooner. Half a second, so that pings of one second that arrive bunched are no reason either.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 5),
)

Handler = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]


class _Health(health.aio.HealthServicer):  # type: ignore[misc,name-defined]  # grpc_health publishes no types
    """gRPC health that asks the server at each check, for a log that breaks makes it unready at once."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the protocol's name
        """One answer; after TERM it stays NOT_SERVING."""
        await self.tell()
        return await super().Check(request, context)

    async def tell(self) -> None:
        """Set what watchers see."""
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self.set(name, status.SERVING if self._server.ready() else status.NOT_SERVING)


class GrpcEndpoints:
    """Serves one server's tasks over gRPC."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._health = _Health(server)
        self._grpc: grpc.aio.Server | None = None
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls: set[object] = set()
        """What identifies each call whose request has been read and whose answer has not left."""

    async def start(self) -> None:
        """Listen; until the server is ready, health says NOT_SERVING. Raises RuntimeError when the port is taken."""
        limit = self._server.contract.limits["request_bytes"]
        self._grpc = grpc.aio.server(
            interceptors=[ReadBounded(self._server.budget, self._server.settings.client_s)],
            options=[
                # gRPC refuses a larger one when it has read its length, with RESOURCE_EXHAUSTED; below, we say why.
                ("grpc.max_receive_message_length", limit + FRAMING),
                ("grpc.max_send_message_length", -1),
                # Two processes on one port would split the calls between two shards unseen.
                ("grpc.so_reuseport", 0),
                *_PINGS,
                *grpc_options(self._server.settings.client_s),
            ],
        )
        self._grpc.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable(self._grpc, SERVICE, health.SERVICE_NAME)
        settings = self._server.settings
        self._grpc.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
        await self._health.tell()
        self._server.on_change(self._health.tell)
        await self._grpc.start()
        logger.info("gRPC listens on %s:%d", settings.host, settings.grpc_port)

    async def tell(self) -> None:
        """Tell those who watch the health whether the server is ready."""
        await self._health.tell()

    async def stop(self) -> None:
        """Say NOT_SERVING, refuse new calls, finish those accepted.

        Calls that have sent no request, and those that watch the health, would keep a server from ending.
        """
        if self._grpc is not None:
            await self._health.enter_graceful_shutdown()
            self._stopping.set_result(None)
            ending = asyncio.create_task(self._grpc.stop(_GRACE_S))
            await asyncio.sleep(0)
            while self._server.busy and not ending.done():
                await asyncio.sleep(0.05)
            # An answer that is computed has still to leave, which takes its time where the processor is busy.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._server.settings.client_s):
                    while self._calls and not ending.done():
                        await asyncio.sleep(0.05)
            await self._grpc.stop(_LAST_S)
            await ending

    def _handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        methods: dict[str, tuple[Handler, Any]] = {
            "ServerLive": (self._live, pb.ServerLiveRequest),
            "ServerReady": (self._ready, pb.ServerReadyRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self._metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
            "ModelInfer": (self._infer, pb.ModelInferRequest),
            "ModelConfig": (self._config, pb.ModelConfigRequest),
            "RepositoryIndex": (self._index, pb.RepositoryIndexRequest),
        }
        served = {
            name: grpc.unary_unary_rpc_method_handler(
                self._counted(guarded(handler)), request_deserializer=request.FromString, response_serializer=_serialize
            )
            for name, (handler, request) in methods.items()
        }
        served["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._counted(guarded(self._stream)),
            request_deserializer=pb.ModelInferRequest.FromString,
            response_serializer=_serialize,
        )
        return grpc.method_handlers_generic_handler(SERVICE, served)

    def _counted(self, handler: Handler) -> Handler:
        async def counted(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            call = object()
            self._calls.add(call)
            context.add_done_callback(lambda _: self._calls.discard(call))  # type: ignore[arg-type]  # called with one
            return await handler(request, context)

        return counted

    async def _live(self, _: pb.ServerLiveRequest, __: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: pb.ServerReadyRequest, __: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._server.ready())

    async def _model_ready(self, request: pb.ModelReadyRequest, _: Any) -> pb.ModelReadyResponse:
        protocol.find_task(self._server.contract, request.name, request.version)
        return pb.ModelReadyResponse(ready=self._server.ready())

    async def _metadata(self, _: pb.ServerMetadataRequest, __: Any) -> pb.ServerMetadataResponse:
        # The binary data of the other extension is HTTP's; here every tensor may come raw.
        extensions = ["model_configuration"]
        return pb.ServerMetadataResponse(name="helix", version=self._server.contract.version, extensions=extensions)

    async def _model_metadata(self, request: pb.ModelMetadataRequest, _: Any) -> pb.ModelMetadataResponse:
        contract = self._server.contract
        return codec.metadata(contract, protocol.find_task(contract, request.name, request.version))

    async def _config(self, request: pb.ModelConfigRequest, _: Any) -> pb.ModelConfigResponse:
        contract = self._server.contract
        task = protocol.find_task(contract, request.name, request.version)
        return pb.ModelConfigResponse(config=triton.config(contract, task))

    async def _index(self, request: pb.RepositoryIndexRequest, _: Any) -> pb.RepositoryIndexResponse:
        return pb.RepositoryIndexResponse(models=triton.index(self._server, ready=request.ready))

    async def _infer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        with self._server.observer.seen(Call("grpc", traceparent=_traceparent(context))) as call:
            core = self._server.core()
            task, wanted = self._read(request, call)
            tensors = codec.read(task, request)
            await context.send_initial_metadata((("x-request-id", call.request_id.hex()),))
            answer = await core.infer(task.name, tensors, call.request_id, call)
            return codec.write(self._server.contract, request, wanted, answer)

    async def _stream(self, requests: AsyncIterable[pb.ModelInferRequest], context: Any) -> None:
        """Answer each request of a stream in turn; the next one is read when this one has its answer."""
        reading = aiter(requests)
        while (request := await self._next(reading)) is not None:
            try:
                with self._server.observer.seen(Call("grpc-stream", traceparent=_traceparent(context))) as call:
                    await self._stream_one(request, context, call)
            except GoneError:
                raise
            except HelixServeError as error:
                await _write(context, _refusal(request, details(error)))
            except grpc.aio.UsageError:  # the call ended while an answer was being written: nobody is there
                return
            except Exception:  # whatever it was, the client gets a sentence and the log the traceback
                logger.exception("request %s failed", call.request_id.hex())
                await _write(context, _refusal(request, "the server failed; this is a fault of the server"))

    async def _next(self, requests: AsyncIterator[pb.ModelInferRequest]) -> pb.ModelInferRequest | None:
        """The next request of a stream; None after the last. Raises NotReadyError when the server stops first."""
        reading = asyncio.ensure_future(anext(requests, None))
        await asyncio.wait((reading, self._stopping), return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return await reading
        # An idle stream must not hold up the end of the process.
        reading.cancel()
        raise NotReadyError("the server is stopping", where="stream", fix="retry at another replica")

    async def _stream_one(self, request: pb.ModelInferRequest, context: Any, call: Call) -> None:
        contract, core = self._server.contract, self._server.core()
        task, wanted = self._read(request, call)
        tensors = codec.read(task, request)
        async with contextlib.aclosing(core.stream(task.name, tensors, call.request_id, call)) as items:
            async for item in items:
                response = codec.write_item(contract, request, wanted, item)
                await _write(context, pb.ModelStreamInferResponse(infer_response=response))

    def _read(self, request: pb.ModelInferRequest, call: Call) -> tuple[Task, list[str]]:
        """The task that is asked for, and the outputs. Raises HelixServeError."""
        limit = self._server.contract.limits["request_bytes"]
        if request.ByteSize() > limit:
            raise TooLargeError(f"the message exceeds {limit} bytes", where="message", fix="send a smaller structure")
        task = protocol.find_task(self._server.contract, request.model_name, request.model_version)
        call.task = task.name
        return task, protocol.wanted_outputs(task, [output.name for output in request.outputs])


async def _write(context: Any, response: pb.ModelStreamInferResponse) -> None:
    """Send one response of a stream. Raises GoneError when the reader takes nothing for too long."""
    try:
        async with asyncio.timeout(STALL_S):
            await context.write(response)
    except TimeoutError:
        raise GoneError(f"the reader took nothing for {STALL_S:.0f} s", where="stream") from None


def _refusal(request: pb.ModelInferRequest, sentence: str) -> pb.ModelStreamInferResponse:
    made = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    made.parameters[codec.FINAL].bool_param = True
    return pb.ModelStreamInferResponse(error_message=sentence, infer_response=made)


def _serialize(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _traceparent(context: Any) -> str | None:
    return next((value for key, value in context.invocation_metadata() or () if key == "traceparent"), None)


def guarded(handler: Handler) -> Handler:
    """The handler, with errors as gRPC statuses of the same sentence."""

    async def safe(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await handler(request, context)
        except HelixServeError as error:
            code = grpc.StatusCode[error.grpc_status]
            await context.abort(code, details(error))
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:  # whatever it was, the client gets a status and the log the traceback
            logger.exception("a gRPC handler failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the server failed; this is a fault of the server")

    return safe
