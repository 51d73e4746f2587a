"""A server that is watched by a real OTLP/HTTP receiver, and asked once at every endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.helixserve import support
from tests.helixserve.support import Serving, serving
from tests.waiting import LONGEST_S, until

CANARY = "GATTACANARYVLSEGEWQLVLHVWAKVEADVAGHGQDILIRLFKSHPETLEKFDRFKHLKTEAEMKASEDLKKHGVTVLTALG"
"""A sequence that must stand in no log, span or metric."""

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@dataclass
class Receiver:
    """Takes spans as a collector does."""

    url: str = ""
    resources: list[dict[str, str]] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resource in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def wait(self, count: int) -> None:
        until(
            lambda: sum(span.kind == span.SPAN_KIND_SERVER for span in self.spans) >= count,
            f"{count} spans of requests",
        )


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            made.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@dataclass
class Asked:
    """What was asked of the server, and what it gave."""

    server: Serving
    ids: dict[str, list[str]] = field(default_factory=dict)
    """Endpoint → prediction ids."""
    output: Path = Path()


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Asked]:
    place = support.make_tiny(tmp_path_factory.mktemp("observe"))
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(place, **environment) as server:
        made = Asked(server, output=server.output)
        ask_every_endpoint(made)
        told = lambda: made.output.read_text().count('"message": "request ')  # noqa: E731
        until(lambda: told() >= len(COUNTS) + REFUSED, "a line of every request, which follows its answer")
        yield made


def ask_every_endpoint(made: Asked) -> None:
    url, headers = made.server.url, {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"values": [1], "seed": 1, "words": [CANARY], "repeats": 2}
    # A connection each: one that is kept may be closed by the server, if this machine lets us wait, as we use it.
    alone = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, headers=headers, timeout=LONGEST_S, limits=alone) as client:
        rows = client.post("/project", json=body).json()["predictions"]
        made.ids["json"] = [row["prediction_id"] for row in rows]
        streamed = client.post("/project/stream", json=body)
        made.ids["json-stream"] = [
            line.split('"prediction_id":"')[1].partition('"')[0] for line in streamed.iter_lines()
        ]
        tensors = [
            {"name": "values", "datatype": "FP32", "shape": [1], "data": [1]},
            {"name": "words", "datatype": "BYTES", "shape": [1], "data": [CANARY]},
        ]
        answer = client.post("/v2/models/tiny-project/infer", json={"inputs": tensors}).json()
        made.ids["oip-http"] = next(o["data"] for o in answer["outputs"] if o["name"] == "prediction_id")
        # Refused, failing and malformed requests that carry the canary, too.
        assert client.post("/project", json={**body, "values": [1] * 9}).status_code == 413
        assert client.post("/project", json={**body, "fault": "raise"}).status_code == 500
        assert client.post("/project", json={**body, CANARY: 1}).status_code == 400
        assert client.post("/project", content=CANARY).status_code == 400
        assert client.post("/project", content=CANARY, headers={"content-type": "text/plain"}).status_code == 415
        assert client.get(f"/{CANARY}?{CANARY}").status_code == 404
    words = triton.InferInput("words", [1], "BYTES")
    words.set_data_from_numpy(np.array([CANARY.encode()], dtype=np.object_))
    values = triton.InferInput("values", [1], "FP32")
    values.set_data_from_numpy(np.ones(1, np.float32))
    with triton.InferenceServerClient(made.server.grpc) as grpc:
        one = grpc.infer("tiny-project", [values, words], headers=headers)
        made.ids["grpc"] = [item.decode() for item in one.as_numpy("prediction_id").tolist()]
        given: list[Any] = []
        grpc.start_stream(lambda result, error: given.append((result, error)), headers=headers)
        grpc.async_stream_infer("tiny-project", [values, words], parameters={"repeats": 2})
        grpc.stop_stream()
        made.ids["grpc-stream"] = [r.as_numpy("prediction_id")[0].decode() for r, error in given if error is None]
    assert {endpoint: len(ids) for endpoint, ids in made.ids.items()} == COUNTS


COUNTS = {"json": 2, "json-stream": 2, "oip-http": 1, "grpc": 1, "grpc-stream": 2}
REFUSED = 5
"""Requests above that an endpoint or the gate refused; the unknown path is nobody's."""
