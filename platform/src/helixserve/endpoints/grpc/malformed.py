"""Messages are read when there is room for them; those that are none get INVALID_ARGUMENT with a sentence.

gRPC's server collects a message, however large, before any handler sees it, and parses it then,
and calls a failure its own fault. The interceptor makes every handler one that reads for itself,
for every service on the port (inference, health, reflection): a message of a call that nobody
reads stays with the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from helixserve.endpoints.values import check_message, malformed
from helixserve.errors import HelixServeError, OverloadedError
from helixserve.execution.budget import Budget, Reservation

_LONGEST_DETAILS = 2000
"""Bytes: a status travels in a header, percent-encoded to three times its size, and clients take 8 KiB of headers."""

_INFER = "Infer"
"""How the methods end that ask for answers (ModelInfer, ModelStreamInfer)."""
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

_Parse = Callable[[bytes], Any]


class ReadBounded(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stub only
    """Reads and parses requests itself, and refuses those that cannot be parsed, or find no room.

    Args:
        budget: what all requests together may hold.
        client_s: how long a call without a stream of requests may take to send its one, and to wait for its turn.
    """

    def __init__(self, budget: Budget, client_s: float) -> None:
        self._budget = budget
        self._client_s = client_s
        self._streams = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, given bytes by gRPC."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        answering = "stream" if handler.response_streaming else "unary"
        turns = self._budget.reading if handler_call_details.method.endswith(_INFER) else self._budget.asking
        read = self._messages if handler.request_streaming else partial(self._message, turns)
        inner = self._bounded(getattr(handler, kind), handler.request_deserializer, read)
        # It is a named tuple.
        changed = {kind: None, f"stream_{answering}": inner, "request_streaming": True}
        return handler._replace(request_deserializer=None, **changed)

    def _bounded(self, inner: Any, parse: _Parse, read: Callable[..., Any]) -> Any:
        """The handler `inner`, for streams of bytes; a generator stays one, for gRPC treats them differently."""

        async def answers(given: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            async with read(given, parse, context) as request:
                async for answer in inner(request, context):
                    yield answer

        async def answer(given: AsyncIterator[bytes], context: Any) -> Any:
            async with read(given, parse, context) as request:
                return await inner(request, context)

        return answers if inspect.isasyncgenfunction(inner) else answer

    @contextlib.asynccontextmanager
    async def _message(
        self, turns: asyncio.Semaphore, given: AsyncIterator[bytes], parse: _Parse, context: Any
    ) -> AsyncIterator[Any]:
        """The one message of a call, read in its turn."""
        with self._budget.hold() as hold:
            try:
                async with asyncio.timeout(self._client_s), turns:
                    data = await anext(given, b"")
            except TimeoutError:
                error = OverloadedError("the message did not come in time", where="message", fix="retry in a second")
                await _abort(error, context)
            yield await _parsed(parse, data, hold, context)

    @contextlib.asynccontextmanager
    async def _messages(self, given: AsyncIterator[bytes], parse: _Parse, context: Any) -> AsyncIterator[Any]:
        """The messages of a stream; each is held until the next one is asked for."""

        async def parsed(hold: Reservation) -> AsyncIterator[Any]:
            async for data in given:
                yield await _parsed(parse, data, hold, context)
                hold.release()

        if self._streams >= self._budget.streams:
            what = f"{self._streams} streams are open already"
            await _abort(OverloadedError(what, where="stream", fix="close one, or retry in a second"), context)
        self._streams += 1
        try:
            with self._budget.hold() as hold:
                yield parsed(hold)
        finally:
            self._streams -= 1


def details(error: HelixServeError) -> str:
    """The sentence of an error, no longer than a status can carry."""
    return str(error).encode()[:_LONGEST_DETAILS].decode(errors="ignore")


async def _parsed(parse: _Parse, data: bytes, hold: Reservation, context: Any) -> Any:
    try:
        hold.grow(len(data))
        check_message(data, parse.__self__.DESCRIPTOR)  # type: ignore[attr-defined]  # a class's own FromString
        return parse(data)
    except HelixServeError as refusal:
        await _abort(refusal, context)
    except DecodeError:
        await _abort(malformed(), context)


async def _abort(error: HelixServeError, context: Any) -> None:
    await context.abort(grpc.StatusCode[error.grpc_status], details(error))
