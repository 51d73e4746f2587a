"""Callers that go away, over the wire: what nobody waits for is not computed, and readers that stop hold nobody up."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from helix_lineage.shard.reader import Log
from tests.helixserve import support
from tests.helixserve.support import Serving, serving

LONG = {"values": [1], "repeats": 50, "pause": 0.1, "seed": 11}
"""Five seconds of computing."""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Path]]:
    """A server, and the file that grows by a byte with each item that it computes."""
    folder = tmp_path_factory.mktemp("gone")
    with serving(support.make_tiny(folder), TINY_COMPUTED=str(folder / "computed")) as server:
        yield server, folder / "computed"


def hangs_up(server: Serving, path: str) -> None:
    """Send a whole request and close the connection half a second later."""
    body = json.dumps(LONG).encode()
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        time.sleep(0.5)


def values() -> triton.InferInput:
    made = triton.InferInput("values", [1], "FP32")
    made.set_data_from_numpy(np.ones(1, np.float32))
    return made


OPTIONS = {name: value for name, value in LONG.items() if name != "values"}


def misses_its_deadline(server: Serving) -> None:
    with (
        triton.InferenceServerClient(server.grpc) as client,
        pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"),
    ):
        client.infer("tiny-project", [values()], parameters=OPTIONS, client_timeout=0.5)


def cancels(server: Serving) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        call = client.async_infer("tiny-project", [values()], callback=lambda *_: None, parameters=OPTIONS)
        time.sleep(0.5)
        call.cancel()


def ignore(result: object, error: object) -> None:
    """What a stream gives."""


def cancels_a_stream(server: Serving) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(ignore)
        client.async_stream_infer("tiny-project", [values()], parameters=OPTIONS)
        client.async_stream_infer("tiny-project", [values()], parameters=OPTIONS)
        time.sleep(0.5)
        client.stop_stream(cancel_requests=True)


def a_stream_misses_its_deadline(server: Serving) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(ignore, stream_timeout=0.5)
        client.async_stream_infer("tiny-project", [values()], parameters=OPTIONS)
        time.sleep(0.6)


LEAVING: dict[str, tuple[Callable[[Serving], None], bool]] = {
    "http": (lambda server: hangs_up(server, "/project"), False),
    "http stream": (lambda server: hangs_up(server, "/project/stream"), True),
    "grpc deadline": (misses_its_deadline, False),
    "grpc cancel": (cancels, False),
    "grpc stream cancel": (cancels_a_stream, True),
    "grpc stream deadline": (a_stream_misses_its_deadline, True),
}
"""How a caller leaves, and whether items were given to it before."""


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def recorded(server: Serving) -> int:
    (shard,) = Log(server.place.log).shard_ids()
    return len(list(Log(server.place.log).shard(shard).predictions()))


@pytest.mark.parametrize("how", LEAVING)
def test_what_nobody_waits_for_is_not_computed(counted: tuple[Serving, Path], how: str) -> None:
    server, computed = counted
    leave, streams = LEAVING[how]
    before, written = size(computed), recorded(server)
    leave(server)
    time.sleep(0.15)
    at = size(computed)
    time.sleep(0.5)
    assert size(computed) <= at + 1, "the model went on"
    assert 1 <= size(computed) - before <= 10
    # Whole answers are recorded whole or not at all; the items of a stream that were given stay recorded.
    assert (recorded(server) - written > 0) == streams
    assert recorded(server) - written <= size(computed) - before
    answer = httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=5)
    assert answer.status_code == 200


def test_a_caller_that_stays_gets_every_item(counted: tuple[Serving, Path]) -> None:
    """The count above can be reached: nothing stops by itself."""
    server, computed = counted
    before = size(computed)
    assert len(httpx.post(f"{server.url}/project", json=LONG | {"pause": 0.0}).json()["predictions"]) == 50
    assert size(computed) - before == 50


def http_stream_unread(server: Serving, stack: contextlib.ExitStack) -> None:
    body = json.dumps({"values": [1], "repeats": 50, "bulk": 1_000_000}).encode()
    head = f"POST /project/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port)))
    connection.sendall(f"{head}\r\n\r\n".encode() + body)


def grpc_stream_unread(server: Serving, stack: contextlib.ExitStack) -> None:
    request = service_pb2.ModelInferRequest(model_name="tiny-project")
    request.inputs.add(name="values", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    request.parameters["repeats"].int64_param = 50
    request.parameters["bulk"].int64_param = 1_000_000
    channel = stack.enter_context(grpc.insecure_channel(server.grpc))
    call = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    stack.callback(call(iter([request])).cancel)


@pytest.mark.parametrize("unread", [http_stream_unread, grpc_stream_unread], ids=["http", "grpc"])
def test_a_reader_that_takes_nothing_holds_neither_the_worker_nor_memory(
    counted: tuple[Serving, Path], unread: Callable[[Serving, contextlib.ExitStack], None]
) -> None:
    """Its stream waits: the server computes what the sockets' buffers hold and no more, and serves the others."""
    server, computed = counted
    process = psutil.Process(server.process.pid)
    before, memory = size(computed), process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            unread(server, stack)
        for _ in range(5):
            assert httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=5).status_code == 200
        time.sleep(0.5)
        at = size(computed)
        time.sleep(0.5)
        assert size(computed) == at
        assert at - before > 5, "the others and one item of each stream at least"
        # 200 items of a megabyte were asked for; a socket's buffers hold some, and a stream one or two more.
        assert at - before < 100
        assert process.memory_info().rss - memory < 100e6
