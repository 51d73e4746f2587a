"""Streams of items over HTTP: one JSON object a line (`application/x-ndjson`), sent as each item is recorded.

    {"request_id": …, "seed": …, "index": 0, "count": 2, "prediction": {"prediction_id": …, …}}

The status is that of the first item; an error after it is the last line, an object with `error`.
A stream that ends before `index` is `count - 1` and without an error was cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from helixserve.endpoints.http.middleware import CALL, error_body
from helixserve.errors import GoneError, HelixServeError
from helixserve.execution.core import STALL_S, Item
from helixserve.observe.call import Call

MEDIA_TYPE = "application/x-ndjson"


class JsonLinesResponse(Response):
    """Answers with a stream of items.

    Args:
        items: from the core; closed when the stream ends, however it ends.
        render: the JSON of one item.
    """

    def __init__(self, items: AsyncGenerator[Item, None], render: Callable[[Item], dict[str, Any]]) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._items = items
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every item, and close the stream of the core."""
        call = CALL.get()
        async with contextlib.aclosing(self._items) as items:
            try:
                first = await anext(items)
            except HelixServeError as error:
                await refusal(error, call)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send(first, send)
            try:
                async for item in items:
                    await self._send(item, send)
            except GoneError:
                raise
            except HelixServeError as error:
                call.status = error.grpc_status
                await _line(error_body(error), send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, item: Item, send: Send) -> None:
        await _line(self._render(item), send)


async def _line(value: dict[str, Any], send: Send) -> None:
    line = json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    try:
        async with asyncio.timeout(STALL_S):
            await send({"type": "http.response.body", "body": line, "more_body": True})
    except TimeoutError:
        raise GoneError(f"the reader took nothing for {STALL_S:.0f} s", where="stream") from None


def refusal(error: HelixServeError, call: Call) -> JSONResponse:
    """The answer that tells of an error."""
    call.status = error.grpc_status
    headers = {"retry-after": "1"} if error.http_status in (429, 503) else {}
    if error.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(error), status_code=error.http_status, headers=headers)
