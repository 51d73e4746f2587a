from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from helixserve.endpoints.http.middleware import REQUEST_ID, RequestMiddleware

LIMIT = 100
JSON = (b"content-type", b"application/json")


class Echo:
    """An application behind the gate that remembers what reached it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ids: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ids.append(REQUEST_ID.get())
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def ask(app: Echo, chunks: list[bytes], *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a body in chunks through the gate; gives status, headers and body."""
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting[-1]["more_body"] = False

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": list(headers)}
    asyncio.run(RequestMiddleware(app, LIMIT)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


def test_a_body_within_the_limit_passes_whole_with_an_id() -> None:
    app = Echo()
    status, headers, _ = ask(app, [b"a" * 60, b"b" * 40], JSON)
    assert (status, app.bodies) == (200, [b"a" * 60 + b"b" * 40])
    assert headers[b"x-request-id"] == app.ids[0].hex().encode()


def test_every_request_gets_another_id_whatever_the_client_sends() -> None:
    app = Echo()
    for _ in range(2):
        ask(app, [b""], (b"x-request-id", b"00" * 16))
    assert len({*app.ids, bytes(16)}) == 3


@pytest.mark.parametrize(
    ("chunks", "headers"),
    [
        ([b"a" * 101], []),
        ([b"a" * 60, b"b" * 60], []),
        ([b"a" * 10] * 1000, []),
        ([b""], [(b"content-length", b"101")]),
    ],
    ids=["one chunk", "two chunks", "endless", "announced"],
)
def test_a_larger_body_is_refused_with_a_sentence_and_never_passed_on(chunks: list[bytes], headers: list[Any]) -> None:
    app = Echo()
    status, given, body = ask(app, chunks, JSON, *headers)
    assert (status, app.bodies) == (413, [])
    assert "100 bytes" in json.loads(body)["error"]
    assert len(given[b"x-request-id"]) == 32


PICKLE = b"application/vnd.bentoml+pickle"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", PICKLE)],
        [(b"content-type", PICKLE.upper() + b"; charset=x")],
        [JSON, (b"content-type", PICKLE)],
        [(b"content-type", PICKLE), JSON],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"")],
        [JSON, (b"content-encoding", b"br")],
        [JSON, (b"Content-Encoding", b"gzip, gzip")],
    ],
    ids=["pickle", "PICKLE", "json+pickle", "pickle+json", "multipart", "empty", "br", "twice"],
)
def test_other_media_types_and_unknown_codings_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    app = Echo()
    status, given, body = ask(app, [b"x"], *headers)
    assert (status, app.bodies) == (415, [])
    assert json.loads(body)["where"].startswith("content-")
    assert given[b"accept-encoding"] == b"gzip, x-gzip, deflate"


def test_a_compressed_body_passes_unpacked_within_the_same_limit() -> None:
    for size, expected in ((LIMIT, 200), (LIMIT + 1, 413)):
        app = Echo()
        status, _, _ = ask(app, [gzip.compress(b"a" * size)], JSON, (b"content-encoding", b"gzip"))
        assert status == expected
        assert app.bodies == ([b"a" * size] if expected == 200 else [])
    packed_pickle = [gzip.compress(b"a")]
    assert ask(Echo(), packed_pickle, (b"content-type", PICKLE), (b"content-encoding", b"gzip"))[0] == 415


def test_json_and_binary_tensors_pass_and_so_does_a_body_without_a_media_type() -> None:
    app = Echo()
    for headers in (
        [],
        [JSON],
        [(b"content-type", b"Application/JSON; charset=utf-8")],
        [(b"content-type", b"application/octet-stream")],
    ):
        assert ask(app, [b"{}"], *headers)[0] == 200


def test_nothing_but_http_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def send(message: Any) -> None:
        seen.append(message["type"])

    for kind in ("websocket", "lifespan"):
        asyncio.run(RequestMiddleware(app, LIMIT)({"type": kind}, None, send))  # type: ignore[arg-type]
    assert seen == ["websocket.close", "lifespan"]


def test_an_exception_behind_the_gate_becomes_an_answer() -> None:
    class Broken(Echo):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise ZeroDivisionError("secrets")

    status, headers, body = ask(Broken(), [b""])
    assert status == 500
    assert b"x-request-id" in headers
    assert b"secrets" not in body
