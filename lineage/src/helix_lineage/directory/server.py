"""The directory over HTTP: POST /v1/…, and the log as C2SP tlog-tiles over GET.

Needs `helix-lineage[directory]` (starlette, uvicorn); nothing else of the package imports this module.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from helix_lineage.directory import entries, rules
from helix_lineage.directory.admission import Registrants
from helix_lineage.directory.connections import BACKLOG, BoundedProtocol, LongQueueLoop, raise_descriptor_limit
from helix_lineage.directory.receipt import DirectoryReceipt
from helix_lineage.directory.service import Directory
from helix_lineage.directory.storage import STATEMENTS
from helix_lineage.errors import (
    DirectoryAway,
    DirectoryBusy,
    DirectoryError,
    DirectoryRefusal,
    LineageError,
    RegistrantUnknown,
    explaining,
)
from helix_lineage.formats import untrusted
from helix_lineage.tlog.layout import MAX_NOTE_BYTES, MAX_TILE_BYTES

_CBOR = "application/cbor"
_BYTES = "application/octet-stream"
_TILE = re.compile(r"(entries|\d{1,2})/(x\d{3}/){0,5}\d{3}(\.p/\d{1,3})?")
_MAX_BODY = 2 * 65536
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_BODY_S = 20.0
"""How long a body may take to come."""
_BODIES = 64 * 2**20
"""Bytes of all bodies of a kind that are being read at one time: as much as all connections with a shard's requests."""
_STATUS: dict[type[LineageError], int] = {
    RegistrantUnknown: 401, DirectoryRefusal: 409, DirectoryBusy: 429, DirectoryAway: 503, DirectoryError: 400,
}  # fmt: skip


CONNECTIONS = 512
"""Most connections at a time."""


class _Connection(BoundedProtocol):
    """A client that says nothing, or takes nothing, is dropped; the one that waited longest, when there are too many.

    Longer than a body may take, so that who is slow with one is told so.
    """

    client_s = 30.0
    most = CONNECTIONS


class _Behind(DirectoryError):
    """The client holds a longer log than this one is."""


def application(directory: Directory, root: Path, registrants: Path) -> Starlette:
    """The ASGI application of a directory whose log lies in `root`.

    Args:
        registrants: the file that says who may register shards (see `admission`).
    """
    api = _Api(directory, root, registrants)
    routes = [
        Route("/checkpoint", api.checkpoint),
        Route("/tile/{name:path}", api.tile),
        Route("/healthz", api.health),
        Route("/v1/shards", api.register, methods=["POST"]),
        Route("/v1/shards/{shard}", api.state),
        Route("/v1/shards/{shard}/checkpoints", api.advance, methods=["POST"]),
        Route("/v1/shards/{shard}/close", api.end, methods=["POST"]),
        Route("/v1/statements", api.submit, methods=["POST"]),
        Route("/v1/statements/{digest}", api.statement),
    ]
    return Starlette(routes=routes, exception_handlers={LineageError: _refused, HTTPException: _no_such_thing})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises DirectoryError."""
    with explaining(DirectoryError, "cannot listen", where=f"{host}:{port}"):
        listening = socket.create_server((host, port), backlog=BACKLOG)
        # Inherited by what is accepted: an answer goes out in two writes, and must not wait for the other side.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening


def run(directory: Directory, root: Path, registrants: Path, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted is answered."""
    raise_descriptor_limit()
    config = uvicorn.Config(
        application(directory, root, registrants),
        log_level="warning",
        access_log=False,
        http=_Connection,
        loop=f"{LongQueueLoop.__module__}:{LongQueueLoop.__name__}",
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        server_header=False,
        lifespan="off",
    )
    uvicorn.Server(config).run(sockets=[listening])


class _Api:
    """The endpoints."""

    def __init__(self, directory: Directory, root: Path, registrants: Path) -> None:
        self._directory, self._root, self._registrants = directory, root, registrants
        # Apart, so that large statements, which anybody may send, never keep a shard's requests out.
        self._shards, self._statements = _Bodies(), _Bodies()

    async def register(self, request: Request) -> Response:
        """POST /v1/shards."""
        registrant = await run_in_threadpool(self._who, request)
        body = entries.decode_registration(await self._shards.read(request, _MAX_BODY))
        return await self._take(request, body, registrant=registrant)

    async def advance(self, request: Request) -> Response:
        """POST /v1/shards/<id>/checkpoints."""
        body = entries.decode_advance(await self._shards.read(request, _MAX_BODY))
        _same_shard(request, body.shard)
        return await self._take(request, body)

    async def end(self, request: Request) -> Response:
        """POST /v1/shards/<id>/close."""
        body = entries.decode_ending(await self._shards.read(request, _MAX_BODY))
        _same_shard(request, body.shard)
        return await self._take(request, body)

    async def submit(self, request: Request) -> Response:
        """POST /v1/statements."""
        bundle = await self._statements.read(request, entries.MAX_BUNDLE_BYTES)
        # It may be long, and anybody may send it: it is parsed beside the event loop.
        return await self._take(request, await run_in_threadpool(rules.statement_of, bundle), bundle)

    async def state(self, request: Request) -> Response:
        """GET /v1/shards/<id>."""
        try:
            state = await run_in_threadpool(self._directory.state, request.path_params["shard"])
        except DirectoryRefusal as error:
            return JSONResponse(_said(error), 404)
        return Response(state.to_bytes(), media_type=_CBOR)

    async def statement(self, request: Request) -> Response:
        """GET /v1/statements/<64 hex>."""
        name = request.path_params["digest"]
        if not re.fullmatch("[0-9a-f]{64}", name):
            raise HTTPException(404)
        return await self._file(self._root / STATEMENTS / name, _FOREVER, entries.MAX_BUNDLE_BYTES)

    async def checkpoint(self, _: Request) -> Response:
        """GET /checkpoint."""
        headers = {"Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8"}
        return await self._file(self._root / "checkpoint", headers, MAX_NOTE_BYTES)

    async def tile(self, request: Request) -> Response:
        """GET /tile/…"""
        name = request.path_params["name"]
        if not _TILE.fullmatch(name):
            raise HTTPException(404)
        return await self._file(self._root / "tile" / name, _FOREVER, MAX_TILE_BYTES)

    async def health(self, _: Request) -> Response:
        """GET /healthz."""
        return JSONResponse({"origin": self._directory.origin, "size": self._directory.book.size})

    async def _file(self, path: Path, headers: dict[str, str], limit: int) -> Response:
        try:
            data = await run_in_threadpool(untrusted.read, path, limit=limit)
        except FileNotFoundError as error:
            raise HTTPException(404) from error
        except OSError as error:
            if untrusted.is_planted(error):  # it is none of the log's files, and so there is none
                raise HTTPException(404) from error
            raise DirectoryAway(f"cannot read a file of the log: {error.strerror}") from error
        return Response(data, headers={"Content-Type": _BYTES, **headers})

    def _who(self, request: Request) -> str:
        """The registrant that asks. Raises RegistrantUnknown, and DirectoryAway when the directory knows of none."""
        try:
            known = Registrants.load(self._registrants)
        except DirectoryError as error:
            raise DirectoryAway(error.what) from error
        return known.who(request.headers.getlist("authorization"))

    async def _take(
        self, request: Request, body: entries.Entry, bundle: bytes | None = None, registrant: str = ""
    ) -> Response:
        seen = _seen(request)
        if seen > self._directory.book.size:
            raise _Behind(f"you hold a checkpoint of {seen} entries, and there are {self._directory.book.size}")

        def take() -> DirectoryReceipt:
            return self._directory.take(body, bundle=bundle, seen=seen, registrant=registrant)

        receipt = await run_in_threadpool(take)
        return Response(receipt.to_bytes(), media_type=_CBOR)


def _seen(request: Request) -> int:
    text = request.query_params.get("seen", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DirectoryError(f"seen is not a number: {text!r}")
    return int(text)


def _same_shard(request: Request, shard: str) -> None:
    if request.path_params["shard"] != shard:
        raise DirectoryError(f"the body is about the shard {shard}", where=request.path_params["shard"])


class _Bodies:
    """The bodies that are being read: bounded each, in time, and together."""

    def __init__(self) -> None:
        self._bytes = 0

    async def read(self, request: Request, most: int) -> bytes:
        """The body, if it is not longer than it may be, and comes soon. Raises HTTPException or DirectoryBusy."""
        data = bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.stream():
                    self._bytes += len(chunk)
                    data += chunk
                    if len(data) > most:
                        raise HTTPException(413)
                    if self._bytes > _BODIES:
                        raise DirectoryBusy("too many requests are being read", 1.0)
        except ClientDisconnect as error:  # nobody hears what is answered
            raise HTTPException(400) from error
        except TimeoutError as error:
            raise HTTPException(408) from error
        finally:
            self._bytes -= len(data)
        return bytes(data)


def _said(error: LineageError) -> dict[str, str | None]:
    return {"error": error.what, "where": error.where, "fix": error.fix}


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, LineageError)  # noqa: S101  it is registered for these
    status, headers = 416 if isinstance(error, _Behind) else _STATUS.get(type(error), 400), {}
    if isinstance(error, DirectoryBusy):
        headers["Retry-After"] = str(math.ceil(max(error.retry_s, 1)))
    if isinstance(error, RegistrantUnknown):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_said(error), status, headers)


def _no_such_thing(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    words = {
        404: "there is nothing of that name",
        408: "the body did not come in time",
        413: "the body is longer than it may be",
    }
    return JSONResponse({"error": words.get(error.status_code, error.detail), "where": None}, error.status_code)
