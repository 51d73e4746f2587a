"""The endpoint of receipts: `GET /v2/helix/receipts/<prediction id>`, beside the Open Inference Protocol's routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from helixserve.endpoints.http.middleware import CALL
from helixserve.recording import receipts
from helixserve.server import Server

PATH = "/v2/helix/receipts/{prediction_id}"
DESCRIBED = {
    "operationId": "receipt",
    "description": "What the owner of a prediction checks it with, offline (lineage/FORMAT.md, section 14).",
    "parameters": [
        {"name": "prediction_id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "authorization", "in": "header", "required": True, "schema": {"type": "string"},
         "description": "Bearer TOKEN"},
    ],
    "responses": {
        "200": {"description": "The receipt.", "content": {"application/json": {"schema": {"type": "object"}}}},
        "400": {"description": "Not a prediction id."},
        "401": {"description": "No token that this server knows."},
        "403": {"description": "This server has no list of tokens (HELIX_RECEIPT_TOKENS)."},
        "404": {"description": "The prediction's shard is not here."},
    },
}  # fmt: skip
"""The OpenAPI description of the receipts."""


def giver(server: Server) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint; raises HelixServeError."""
    reading = asyncio.Semaphore(1)  # one at a time: predictions go first

    async def receipt(request: Request) -> Response:
        CALL.get().endpoint = "receipts"
        settings = server.settings
        receipts.authorise(settings.receipt_tokens, request.headers.getlist("authorization"))
        async with reading:
            made = await asyncio.to_thread(receipts.receipt, settings.log, request.path_params["prediction_id"])
        return Response(made, media_type="application/json", headers={"cache-control": "no-store"})

    return receipt
