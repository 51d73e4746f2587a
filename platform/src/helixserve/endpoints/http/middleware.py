"""What every HTTP request passes first: size, media type, and a request id.

An ASGI middleware around BentoML's whole application, so that no route escapes it, those of a
later BentoML included. Pickle is refused whatever the route; a compressed body is unpacked here,
within the same limit. A client that hangs up cancels its request, and what was asked is seen:
metrics, traces and logs are told when it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from helixserve.endpoints.http.body import CODINGS, RequestBody
from helixserve.errors import FramingError, HelixServeError, MediaTypeError, OverloadedError, TooLargeError
from helixserve.execution.budget import Budget, Reservation
from helixserve.observe.call import CANCELLED, INTERNAL, OK, Call

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[str, list[str]]

logger = logging.getLogger("helixserve.gate")

REQUEST_ID: ContextVar[bytes] = ContextVar("helix_request_id")
"""The 16 bytes that name the request being served; the server always draws them."""

CALL: ContextVar[Call] = ContextVar("helix_call")
"""What is seen of the request being served; an endpoint that takes it names itself there."""

_DRAIN = 8
"""How many times the limit is read and thrown away, so that a client has sent all before it reads the refusal."""


class RequestMiddleware:
    """Wraps an ASGI application.

    Args:
        app: what to wrap.
        limit: largest body, in bytes.
        budget: what the bodies of all requests together may take; unbounded when missing.
        began: told of each request before it is served.
        ended: told of each request that an endpoint took, or that was refused here, when it has ended.
    """

    def __init__(
        self,
        app: App,
        limit: int,
        *,
        budget: Budget | None = None,
        began: Callable[[Call], None] = lambda _: None,
        ended: Callable[[Call], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._limit = limit
        self._budget = budget or Budget(1 << 60, limit)
        self._began, self._ended = began, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; errors become answers."""
        if scope["type"] != "http":
            # No websockets here, which the handshake must hear; `lifespan` must pass.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        headers = _headers(scope)
        call = Call(traceparent=headers.get("traceparent", [None])[0])
        REQUEST_ID.set(call.request_id)
        CALL.set(call)
        self._began(call)
        try:
            with self._budget.hold() as hold:
                await self._serve(call, scope, headers, hold, _Connection(receive, send, call.request_id))
        finally:
            if call.endpoint:
                call.end()
                self._ended(call)

    async def _serve(
        self, call: Call, scope: Scope, headers: Headers, hold: Reservation, connection: _Connection
    ) -> None:
        try:
            connection.body = await self._body(headers, hold, connection)
            async with connection.watched(scope):
                await self._app(scope, connection.receive, connection.send)
        except HelixServeError as error:
            call.endpoint, call.status = call.endpoint or "http", error.grpc_status
            if not connection.started:
                early = isinstance(error, OverloadedError)
                await refuse(error, connection.send, more=early)
                if early:
                    await self._drain(connection)
        except asyncio.CancelledError:
            call.status = CANCELLED
            raise
        except Exception:  # whatever it was, the client gets an answer and the log the traceback
            # BentoML's timeout middleware waits for an answer to begin, so an exception would look like a hang.
            logger.exception("request %s failed", call.request_id.hex())
            call.status = INTERNAL
            if connection.started:
                raise
            await refuse(HelixServeError("the server failed; this is a fault of the server"), connection.send)
        if connection.gone and not connection.answered:
            call.status = CANCELLED
        elif connection.status >= 500 and call.status == OK:
            call.status = INTERNAL  # BentoML made an answer of an exception

    async def _drain(self, connection: _Connection) -> None:
        """Throw away what still comes of a body that was refused before its end, and end the answer.

        A connection that is closed over unread bytes takes the answer with it.
        """
        seen = 0
        while seen <= self._limit and not connection.ended:
            seen += len((await connection.incoming()).get("body", b""))
        await connection.send({"type": "http.response.body", "body": b""})

    async def _body(self, headers: Headers, hold: Reservation, connection: _Connection) -> bytes:
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may believe the one and this server the other: a second request would be smuggled in between.
            raise FramingError("a body has a content-length or a transfer-encoding, not both", where="content-length")
        for length in headers.get("content-length", ()):
            if length.isascii() and length.isdigit() and len(length) < 20 and int(length) <= self._limit:
                self._budget.check(int(length), of=int(length))
        body = RequestBody(headers, self._limit, hold)
        seen = 0
        while seen <= _DRAIN * self._limit:
            message = await connection.incoming()
            chunk = message.get("body", b"")
            seen += len(chunk)
            body.take(chunk)
            if connection.ended or body.overloaded:
                break
        return body.whole()


def error_body(error: HelixServeError) -> dict[str, Any]:
    """The JSON that tells of an error, the same at both HTTP endpoints; `error` is the whole sentence."""
    return {"error": str(error), "where": error.where, "fix": error.fix}


async def refuse(error: HelixServeError, send: Send, *, more: bool = False) -> None:
    """Answer with an error, outside of any framework; with `more` the answer's end is left to the caller."""
    body = json.dumps(error_body(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.http_status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if isinstance(error, TooLargeError | FramingError | OverloadedError):
        headers.append((b"connection", b"close"))
    if isinstance(error, MediaTypeError):
        headers.append((b"accept-encoding", ", ".join(CODINGS).encode()))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _headers(scope: Scope) -> Headers:
    # All values of a repeated header: which one counts behind the gate is not for the client to choose.
    found: Headers = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


class _Connection:
    """One request's side of the client: gives the body once, then a disconnect, and names the answer."""

    def __init__(self, receive: Receive, send: Send, request_id: bytes) -> None:
        self._receive = receive
        self.ended = False
        """Whether all of the body came, or nothing will."""
        self.body = b""
        self.started = self.answered = self.gone = False
        self.status = 0
        self._send = send
        self._name = (b"x-request-id", request_id.hex().encode())
        self._given = False
        self._watcher: asyncio.Task[None] | None = None

    async def incoming(self) -> Message:
        """What comes from the client next."""
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def receive(self) -> Message:
        """The body that was read already, whole; then whatever follows: a disconnect."""
        if not self._given:
            self._given = True
            body, self.body = self.body, b""  # kept by whoever parses it, and no longer
            return {"type": "http.request", "body": body, "more_body": False}
        if self._watcher is None:
            return await self.incoming()
        await asyncio.shield(self._watcher)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass it on, the request's id among its headers."""
        self.started = True
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._name]
        self.answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    @contextlib.asynccontextmanager
    async def watched(self, scope: Scope) -> AsyncIterator[None]:
        """Cancel what runs inside when the client hangs up before it has its answer; that is no error."""
        if scope.get("method") != "POST":
            yield  # nothing is computed for the others
            return
        serving = asyncio.current_task()
        assert serving is not None  # noqa: S101 - a coroutine runs in a task

        async def watch() -> None:
            while (await self.incoming())["type"] != "http.disconnect":
                pass
            if not self.answered:
                self.gone = True
                serving.cancel()

        self._watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not self.gone or serving.uncancel():
                raise
        finally:
            self._watcher.cancel()
