"""Hostile requests by hand, each with a canary: what would happen if it got in, and that it does not.

A limit's canary is the same request just below it, which is served.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import pickle
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import zstandard
from tritonclient.grpc import service_pb2 as pb

from tests.helixserve.support import Serving
from tests.waiting import LONGEST_S

LIMIT = 20_000
JSON = {"content-type": "application/json"}
INFER = "/v2/models/tiny-measure/infer"
PICKLE = "application/vnd.bentoml+pickle"
ROUTES = [
    "/project",
    "/measure",
    INFER,
    "/v2",
    "/",
    "/metrics",
    "/docs.json",
    "/schema.json",
    "/livez",
    "/readyz",
    "/x",
]


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_no_route_of_any_port_reads_a_pickle(server: Serving, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    pickle.loads(bomb)  # noqa: S301  # the canary sings
    assert canary.exists()
    canary.unlink()
    multipart = b'--x\r\nContent-Disposition: form-data; name="values"; filename="a"\r\n'
    multipart += b"Content-Type: application/vnd.bentoml+pickle\r\n\r\n" + bomb + b"\r\n--x--\r\n"
    for route in ROUTES:
        for kind, body in (
            (PICKLE, bomb),
            (f"{PICKLE.upper()}; charset=x", bomb),
            ("multipart/form-data; boundary=x", multipart),
            ("multipart/mixed; boundary=x", multipart),
            ("application/x-www-form-urlencoded", b"values=" + bomb),
        ):
            answer = httpx.post(server.url + route, content=body, headers={"content-type": kind, "args-number": "1"})
            assert answer.status_code == 415, (route, kind)
            assert answer.json()["where"] == "content-type"
        for headers in ({}, JSON, {"content-type": "application/octet-stream", "payload-container": "default"}):
            answer = httpx.post(server.url + route, content=bomb, headers={**headers, "accept": PICKLE})
            assert answer.status_code in (400, 404, 405), (route, headers)
    for method in ("ModelInfer", "ServerLive", "ModelReady"):
        assert grpc_code(server, bomb, method) == grpc.StatusCode.INVALID_ARGUMENT
    wrapped = pb.ModelInferRequest(model_name="tiny-measure", raw_input_contents=[bomb])
    assert grpc_code(server, wrapped.SerializeToString()) == grpc.StatusCode.INVALID_ARGUMENT
    assert not canary.exists()


def grpc_code(server: Serving, data: bytes, method: str = "ModelInfer", **more: Any) -> grpc.StatusCode:
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(data, timeout=30, **more)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]  # a call, which the stub hides
            return code
    return grpc.StatusCode.OK


def infer(text: str, **more: Any) -> bytes:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
    return json.dumps({"inputs": [tensor], **more}).encode()


def padded(size: int) -> bytes:
    return infer("x" * (size - len(infer(""))))


def nested(depth: int) -> bytes:
    return b'{"text": "a", "words": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


LIMITS: dict[str, tuple[str, Callable[[int], bytes], int, int]] = {
    "bytes": (INFER, padded, LIMIT, 413),
    "values": ("/project", lambda n: json.dumps({"values": [1] * n}).encode(), 8, 413),
    "items": ("/project", lambda n: json.dumps({"values": [1], "repeats": n}).encode(), 3, 400),
    "axes": (INFER, lambda n: infer("a").replace(b"[1]", json.dumps([1] * n).encode(), 1), 1, 400),
    "digits": ("/project", lambda n: b'{"values": [1], "seed": %d}' % n, 2**64 - 1, 400),
    "size of a number": ("/project", lambda n: b'{"values": [%de5]}' % n, 10, 400),
}


@pytest.mark.parametrize("what", LIMITS)
def test_what_is_at_a_limit_is_served_and_what_is_beyond_is_not(server: Serving, what: str) -> None:
    route, make, most, status = LIMITS[what]
    served = httpx.post(server.url + route, content=make(most), headers=JSON)
    assert served.status_code == 200, served.text
    refused = httpx.post(server.url + route, content=make(most + 1), headers=JSON)
    assert refused.status_code == status
    assert len(refused.json()["error"]) < 1000


def test_json_nests_no_deeper_than_the_contract_says(server: Serving) -> None:
    for depth, said in ((16, "known inputs"), (17, "nests deeper than 16"), (5000, "nests deeper than 16")):
        answer = httpx.post(f"{server.url}/measure", content=nested(depth), headers=JSON)
        assert answer.status_code == 400
        assert said in answer.text
    flat = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [["a"]]}]
    assert httpx.post(server.url + INFER, json={"inputs": flat}).status_code == 200


HUGE = b'{"text": "' + b"a" * (64 << 20) + b'"}'
BOMBS = {
    "gzip": gzip.compress(HUGE),
    "deflate": zlib.compress(HUGE),
    "zstd": zstandard.compress(HUGE),
    "br": b"\xcb\xff\xff?\xf8\x1f~\x00",
}


@pytest.mark.parametrize("encoding", BOMBS)
def test_a_compressed_body_is_unpacked_no_further_than_the_limit(server: Serving, encoding: str) -> None:
    bomb = BOMBS[encoding][: LIMIT - 1] if encoding != "br" else BOMBS[encoding]
    process = psutil.Process(server.process.pid)
    httpx.get(f"{server.url}/livez")
    before = process.memory_info().rss
    with_header = httpx.post(f"{server.url}/measure", content=bomb, headers=JSON | {"content-encoding": encoding})
    refusal = (413, "body") if encoding in ("gzip", "deflate") else (415, "content-encoding")
    assert (with_header.status_code, with_header.json()["where"]) == refusal
    assert httpx.post(f"{server.url}/measure", content=bomb, headers=JSON).status_code == 400
    assert process.memory_info().rss - before < 16 << 20
    plain = httpx.post(
        f"{server.url}/measure", content=b'{"text": "a"}', headers=JSON | {"content-encoding": "identity"}
    )
    assert plain.status_code == 200


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_is_unpacked_no_further_than_the_limit(
    server: Serving, algorithm: grpc.Compression
) -> None:
    small = pb.ModelInferRequest(model_name="tiny-measure", raw_input_contents=[b"\1\0\0\0a"])
    small.inputs.add(name="text", datatype="BYTES", shape=[1])
    assert grpc_code(server, small.SerializeToString(), compression=algorithm) == grpc.StatusCode.OK
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    huge = pb.ModelInferRequest(model_name="tiny-measure", id="i" * (64 << 20)).SerializeToString()
    assert grpc_code(server, huge, compression=algorithm) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert process.memory_info().rss - before < 32 << 20


def talk(server: Serving, *parts: bytes, timeout: float = LONGEST_S) -> bytes:
    """Send bytes and read what comes until the server closes, or is silent while it has answered somebody else."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=timeout) as client:
        got = b""
        with contextlib.suppress(OSError):  # closed
            for part in parts:
                client.sendall(part)
            client.settimeout(SILENT_S)
            while more := received(client) or (answers(server) and received(client)):
                got += more
        return got


SILENT_S = 0.5


def received(client: socket.socket) -> bytes:
    """What comes next; nothing from a server that closes, or is silent for a while."""
    with contextlib.suppress(TimeoutError):
        return client.recv(1 << 16)
    return b""


def answers(server: Serving) -> bool:
    return httpx.post(f"{server.url}/measure", content=GOOD, headers=JSON, timeout=LONGEST_S).status_code == 200


GOOD = b'{"text": "a"}'


def test_a_body_whose_end_can_be_read_in_two_ways_smuggles_nothing(server: Serving) -> None:
    head = b"POST /measure HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    hidden = b"GET /v2 HTTP/1.1\r\nhost: smuggled\r\n\r\n"
    # The canary: two honest requests on one connection get two answers.
    honest = head + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD + hidden
    assert talk(server, honest).count(b"HTTP/1.1 200") == 2
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    for framing in (
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 4\r\ncontent-length: 13\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"transfer-encoding: xchunked\r\n",
    ):
        got = talk(server, head + framing + b"\r\n" + chunked + hidden)
        assert b"200 OK" not in got, framing
        assert got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), framing


def test_a_chunked_body_without_end_is_cut_off(server: Serving) -> None:
    head = b"POST /measure HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b" 200 OK" in talk(server, head, b"d\r\n" + GOOD + b"\r\n0\r\n\r\n")
    process = psutil.Process(server.process.pid)
    before, started = process.memory_info().rss, sum(process.cpu_times()[:2])
    got = talk(server, head, *[b"1000\r\n" + b"a" * 4096 + b"\r\n"] * 5000)
    assert got == b"" or got.startswith(b"HTTP/1.1 413")
    assert sum(process.cpu_times()[:2]) - started < 10, "it was cut off, and not read to its end"
    assert process.memory_info().rss - before < 16 << 20
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_flood_of_headers_is_refused(server: Serving) -> None:
    def ask(count: int) -> bytes:
        return (
            b"GET /v2 HTTP/1.1\r\n"
            + b"".join(b"h%d: %s\r\n" % (i, b"a" * 90) for i in range(count))
            + b"host: x\r\n\r\n"
        )

    assert talk(server, ask(100)).startswith(b"HTTP/1.1 200")
    refused = talk(server, ask(50_000))
    assert refused == b"" or refused.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_websocket_is_not_opened(server: Serving) -> None:
    ask = b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    ask += b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    assert talk(server, ask)[9:12] in (b"307", b"403")  # the way to the page, or a refusal: not 101, and not 500


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/project", b'{"\\ud800": 1}'),
        ("/measure", b'{"text": "\\ud800"}'),
        (INFER, infer("a", id="x").replace(b'"x"', b'"\\ud800"')),
        (INFER, infer("a", id={"a": 1})),
        (INFER, infer("a").replace(b"[1]", b"[" + b"2147483647," * 1500 + b"1]")),
        ("/project", b'{"values": [1], "values": [2]}'),
        ("/project", b'{"values": [1e999]}'),
        ("/project", b'{"values": [' + b"9" * 4000 + b"]}"),
        ("/project", b'{"values": [' + b"9" * 5000 + b"]}"),
        ("/project", json.dumps({"x" * 15_000: 1}).encode()),
        (INFER, json.dumps({"inputs": [{"name": "n" * 15_000, "datatype": "X", "shape": [], "data": []}]}).encode()),
    ],
)
def test_what_used_to_be_an_exception_or_an_endless_sentence_is_a_short_one(
    server: Serving, route: str, body: bytes
) -> None:
    answer = httpx.post(server.url + route, content=body, headers=JSON)
    assert answer.status_code == 400
    assert len(answer.content) < 2500
    assert answer.json()["error"]


def test_text_with_nul_bytes_is_text(server: Serving) -> None:
    answer = httpx.post(f"{server.url}/measure", json={"text": "a\0b"})
    assert answer.json()["predictions"][0]["length"] == 3


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "0x10", "99999"])
def test_a_length_of_the_json_that_is_none_is_refused(server: Serving, length: str) -> None:
    header = "inference-header-content-length"
    assert (
        httpx.post(server.url + INFER, content=infer("a"), headers=JSON | {header: str(len(infer("a")))}).status_code
        == 200
    )
    assert httpx.post(server.url + INFER, content=infer("a"), headers=JSON | {header: length}).status_code == 400
    twice = [(header, str(len(infer("a")))), (header, "1"), *JSON.items()]
    assert "2 times" in httpx.post(server.url + INFER, content=infer("a"), headers=twice).json()["error"]


def test_a_long_sentence_reaches_a_grpc_client(server: Serving) -> None:
    request = pb.ModelInferRequest(model_name="tiny-measure")
    request.inputs.add(name="ø" * 9000, datatype="X", shape=[1])
    assert grpc_code(server, request.SerializeToString()) == grpc.StatusCode.INVALID_ARGUMENT


def test_made_up_paths_leave_no_trace_in_memory_or_log(server: Serving) -> None:
    """BentoML's metrics kept series for each; its log took line breaks as they came."""
    with httpx.Client(base_url=server.url) as client:
        for number in range(300):
            client.get(f"/made/up/{number}")
        client.get("/forged%0aINFO%20a%20line")
        client.post("/measure", json={"text": "a"})
        metrics = client.get("/metrics").text
    assert "made" not in metrics
    assert "forged" not in metrics
    assert 'endpoint="json",status="OK",task="measure"' in metrics
    got = talk(server, b"POST /measure HTTP/1.1\r\nhost: x\r\ncontent-type: \xff\r\ncontent-length: 1\r\n\r\n1")
    assert got.startswith(b"HTTP/1.1 415")
    written = server.output.read_text()
    assert '"task": "measure", "status": "OK"' in written  # the canary: this is the log of requests
    assert '"endpoint": "http", "task": "", "status": "INVALID_ARGUMENT"' in written
    assert "made/up" not in written
    assert "a line" not in written
    assert "UnicodeDecodeError" not in written
