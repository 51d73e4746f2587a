"""One design, asked for at each endpoint of a server: requests made beforehand, connections kept, answers read."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.http

from benchmarks.served import MODEL, STRUCTURE
from model_to_metal.local.container import ServedImage

SEED = 7
CALL = "/inference.GRPCInferenceService/ModelInfer"
BINARY = "Inference-Header-Content-Length"


@contextmanager
def asking(server: ServedImage) -> Iterator[dict[str, Callable[[], object]]]:
    """Endpoint → a call that asks for one design and returns when the whole answer is there."""
    with ExitStack() as stack:

        def post(path: str, body: bytes, headers: Mapping[str, str]) -> Callable[[], object]:
            address = server.http.removeprefix("http://")
            host, _, port = address.partition(":")
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = {"Host": address, **headers, "Content-Length": str(len(body))}
            lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
            request = "\r\n".join(lines).encode("ascii") + body
            return lambda: _ask(connection, request)

        channel = stack.enter_context(grpc.insecure_channel(server.grpc))
        call = channel.unary_unary(CALL)
        message = grpc_message()
        plain = {"Content-Type": "application/json"}
        binary, length = binary_body()
        infer = f"/v2/models/{MODEL}-design/infer"
        yield {
            "BentoML JSON": post("/design", json.dumps({"structure": _structure(), "seed": SEED}).encode(), plain),
            "Open Inference JSON": post(infer, json_body(), plain),
            "Open Inference binary": post(
                infer, binary, {"Content-Type": "application/octet-stream", BINARY: str(length)}
            ),
            "Open Inference gRPC": lambda: call(message, timeout=60),
        }


def json_body() -> bytes:
    """An Open Inference request in JSON."""
    tensor = {"name": "structure", "datatype": "BYTES", "shape": [1], "data": [_structure()]}
    return json.dumps({"inputs": [tensor], "parameters": {"seed": SEED}}).encode()


def binary_body() -> tuple[bytes, int]:
    """The same with the tensor as bytes behind the JSON, as Triton's client makes it; and how long the JSON is."""
    made = tritonclient.http.InferInput("structure", [1], "BYTES")
    made.set_data_from_numpy(_array(), binary_data=True)
    make: Any = tritonclient.http.InferenceServerClient.generate_request_body
    body, length = make([made], parameters={"seed": SEED})
    return bytes(body), int(length)


def grpc_message() -> bytes:
    """The same as a message of gRPC."""
    from tritonclient.grpc import service_pb2 as protocol  # noqa: PLC0415

    made = tritonclient.grpc.InferInput("structure", [1], "BYTES")
    made.set_data_from_numpy(_array())
    request = protocol.ModelInferRequest(model_name=f"{MODEL}-design")
    request.parameters["seed"].int64_param = SEED
    request.inputs.extend([made._get_tensor()])
    request.raw_input_contents.extend([made._get_content()])
    return bytes(request.SerializeToString())


def _array() -> Any:
    return np.array([STRUCTURE.read_bytes()], dtype=np.object_)


def _structure() -> str:
    return STRUCTURE.read_text(encoding="ascii")


def _ask(connection: socket.socket, request: bytes) -> bytes:
    """An answer's body. Not by an HTTP library: what its parser takes, half a millisecond, is not a server's time."""
    connection.sendall(request)
    head = bytearray()
    while b"\r\n\r\n" not in head:
        head += _received(connection)
    told, _, body = bytes(head).partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *([0-9]+)", told)
    if not told.startswith(b"HTTP/1.1 200 ") or length is None:
        raise RuntimeError(f"{told[:200]!r} {body[:200]!r}")
    while len(body) < int(length[1]):
        body += _received(connection)
    return body


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server hung up")
    return data
