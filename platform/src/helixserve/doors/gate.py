"""What every HTTP request passes first: size, media type, and a request id.

An ASGI middleware around BentoML's whole application, so that no route escapes it, those of a
later BentoML included. Pickle is refused whatever the route; so are compressed bodies, which
would make the size limit meaningless.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from helixserve.errors import HelixServeError, MediaTypeError, TooLargeError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[str, list[str]]

logger = logging.getLogger("helixserve.gate")

REQUEST_ID: ContextVar[bytes] = ContextVar("helix_request_id")
"""The 16 bytes that name the request being served; the server always draws them."""

MEDIA_TYPES = ("application/json", "application/octet-stream")
"""octet-stream is the binary tensor extension's; a body without a media type is taken for JSON."""

_DRAIN = 8
"""How many times the limit is read and thrown away, so that a client has sent all before it reads the refusal."""


class Gate:
    """Wraps an ASGI application.

    Args:
        app: what to wrap.
        limit: largest body, in bytes.
    """

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; errors become answers."""
        if scope["type"] != "http":
            # No websockets here; `lifespan` must pass.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request_id = secrets.token_bytes(16)
        REQUEST_ID.set(request_id)

        started = False

        async def named(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.hex().encode())]
            await send(message)

        try:
            body = await self._body(_headers(scope), receive)
            await self._app(scope, _replayed(body, receive), named)
        except HelixServeError as error:
            await refuse(error, named)
        except Exception:  # whatever it was, the client gets an answer and the log the traceback
            # BentoML's timeout middleware waits for an answer to begin, so an exception would look like a hang.
            logger.exception("request %s failed", request_id.hex())
            if started:
                raise
            await refuse(HelixServeError("the server failed; this is a fault of the server"), named)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        too_large = any(length.isdigit() and int(length) > self._limit for length in headers.get("content-length", ()))
        chunks: list[bytes] = []
        seen = 0
        while seen <= _DRAIN * self._limit:
            message = await receive()
            chunk = message.get("body", b"")
            seen += len(chunk)
            too_large = too_large or seen > self._limit
            if not too_large:
                chunks.append(chunk)
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        if too_large:
            raise TooLargeError(f"the body exceeds {self._limit} bytes", where="body", fix="send a smaller structure")
        body = b"".join(chunks)
        if body:
            check_media_type(headers)
        return body


def check_media_type(headers: Headers) -> None:
    """Raises MediaTypeError for a body that is neither JSON nor binary tensors, or is compressed."""
    for value in headers.get("content-type", ()):
        media_type = value.partition(";")[0].strip().lower()
        if media_type not in MEDIA_TYPES:
            raise MediaTypeError(f"{media_type!r} is not served", where="content-type", fix="send application/json")
    for value in headers.get("content-encoding", ()):
        if value.strip().lower() != "identity":
            raise MediaTypeError(f"bodies compressed with {value!r} are not served", where="content-encoding")


def error_body(error: HelixServeError) -> dict[str, Any]:
    """The JSON that tells of an error, the same at both HTTP doors; `error` is the whole sentence."""
    return {"error": str(error), "where": error.where, "fix": error.fix}


async def refuse(error: HelixServeError, send: Send) -> None:
    """Answer with an error, outside of any framework."""
    body = json.dumps(error_body(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, TooLargeError):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> Headers:
    # All values of a repeated header: which one counts behind the gate is not for the client to choose.
    found: Headers = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, then whatever follows: a disconnect."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
