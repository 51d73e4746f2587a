"""Messages that are no messages: INVALID_ARGUMENT with a sentence, where gRPC would say UNKNOWN.

gRPC's server parses a message before any handler sees it, and calls a failure its own fault. The
interceptor parses instead, for every service on the port: inference, health, reflection.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from helixserve.errors import HelixServeError, InvalidInputError

_LONGEST_DETAILS = 2000
"""Bytes: a status travels in a header, percent-encoded to three times its size, and clients take 8 KiB of headers."""

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

_Parse = Callable[[bytes], Any]


class RefuseMalformed(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stub only
    """Parses requests itself, and refuses those that cannot be parsed."""

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
        inner = _strict(getattr(handler, kind), handler.request_deserializer, streaming=handler.request_streaming)
        return handler._replace(request_deserializer=None, **{kind: inner})  # it is a named tuple


def details(error: HelixServeError) -> str:
    """The sentence of an error, no longer than a status can carry."""
    return str(error).encode()[:_LONGEST_DETAILS].decode(errors="ignore")


def _strict(inner: Any, parse: _Parse, *, streaming: bool) -> Any:
    """The handler `inner`, for bytes; a generator stays one, for gRPC treats them differently."""

    async def messages(given: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        async for data in given:
            yield await _parsed(parse, data, context)

    async def read(given: Any, context: Any) -> Any:
        return messages(given, context) if streaming else await _parsed(parse, given, context)

    async def answers(given: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in inner(await read(given, context), context):
            yield answer

    async def answer(given: Any, context: Any) -> Any:
        return await inner(await read(given, context), context)

    return answers if inspect.isasyncgenfunction(inner) else answer


async def _parsed(parse: _Parse, data: bytes, context: Any) -> Any:
    try:
        return parse(data)
    except DecodeError:
        error = InvalidInputError("the message cannot be parsed", where="message", fix="send protobuf of the .proto")
        await context.abort(grpc.StatusCode[error.grpc_status], details(error))
