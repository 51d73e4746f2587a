"""Callers that go away, over the wire: abandoned requests are cancelled; slow clients don't block others."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator

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
from tests.waiting import LONGEST_S, longer, until

LONG = {"values": [1], "repeats": 50, "seed": 11}
GIVEN = 3
"""Items that are computed before a caller leaves; the model is within the next one then."""
OTHERS = 5
"""Requests after that."""
DEADLINE_S = 0.5
STREAMS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(support.make_tiny(tmp_path_factory.mktemp("gone"))) as made:
        yield made


def until_held(server: Serving) -> None:
    until(server.held, f"{GIVEN} items")


def hangs_up(server: Serving, path: str) -> None:
    """Send a whole request and close the connection while it is computed."""
    body = json.dumps(LONG).encode()
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        until_held(server)


def values() -> triton.InferInput:
    made = triton.InferInput("values", [1], "FP32")
    made.set_data_from_numpy(np.ones(1, np.float32))
    return made


OPTIONS = {name: value for name, value in LONG.items() if name != "values"}


def misses_its_deadline(server: Serving) -> None:
    """Until a deadline is met that lets the server begin."""
    deadlines = longer(DEADLINE_S, "a request under way at its deadline")
    with triton.InferenceServerClient(server.grpc) as client:
        while not server.held():
            with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
                client.infer("tiny-project", [values()], parameters=OPTIONS, client_timeout=next(deadlines))


def cancels(server: Serving) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        call = client.async_infer("tiny-project", [values()], callback=lambda *_: None, parameters=OPTIONS)
        until_held(server)
        call.cancel()


def ignore(result: object, error: object) -> None:
    """What a stream gives."""


def cancels_a_stream(server: Serving) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(ignore)
        client.async_stream_infer("tiny-project", [values()], parameters=OPTIONS)
        client.async_stream_infer("tiny-project", [values()], parameters=OPTIONS)
        until_held(server)
        client.stop_stream(cancel_requests=True)


def a_stream_misses_its_deadline(server: Serving) -> None:
    """Until a deadline is met that lets the server begin."""
    deadlines = longer(DEADLINE_S, "a stream under way at its deadline")
    while not server.held():
        told: list[Exception | None] = []

        def tell(result: object, error: Exception | None, told: list[Exception | None] = told) -> None:
            told.append(error)

        with triton.InferenceServerClient(server.grpc) as client:
            client.start_stream(tell, stream_timeout=next(deadlines))
            client.async_stream_infer("tiny-project", [values()], parameters=OPTIONS)
            until(lambda told=told: any(told), "an error of the stream")
        assert "Deadline Exceeded" in str(told[-1])


LEAVING: dict[str, tuple[Callable[[Serving], None], bool]] = {
    "http": (lambda server: hangs_up(server, "/project"), False),
    "http stream": (lambda server: hangs_up(server, "/project/stream"), True),
    "grpc deadline": (misses_its_deadline, False),
    "grpc cancel": (cancels, False),
    "grpc stream cancel": (cancels_a_stream, True),
    "grpc stream deadline": (a_stream_misses_its_deadline, True),
}
"""How a caller leaves, and whether items were given to it before."""


def recorded(server: Serving) -> int:
    (shard,) = Log(server.place.log).shard_ids()
    return len(list(Log(server.place.log).shard(shard).predictions()))


def ask(server: Serving) -> None:
    assert httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 200


@pytest.mark.parametrize("how", LEAVING)
def test_what_nobody_waits_for_is_not_computed(server: Serving, how: str) -> None:
    leave, streams = LEAVING[how]
    written, before = recorded(server), server.computed
    with server.holding(after=GIVEN):
        leave(server)
        until(lambda: server.inside == 0, "the server's notice that the caller is gone")
    assert server.computed <= before + GIVEN + 1
    # Whole answers are recorded whole or not at all; the items of a stream that were given stay recorded.
    assert (recorded(server) - written > 0) == streams
    assert recorded(server) - written <= GIVEN
    for _ in range(OTHERS):  # with whom the request would take turns
        ask(server)
    assert server.computed <= before + GIVEN + 1 + OTHERS, "the model went on"


def test_a_caller_that_stays_gets_every_item(server: Serving) -> None:
    """The count above can be reached: nothing stops by itself."""
    before = server.computed
    answer = httpx.post(f"{server.url}/project", json=LONG, timeout=LONGEST_S)
    assert len(answer.json()["predictions"]) == 50
    assert server.computed - before == 50


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
    server: Serving, unread: Callable[[Serving, contextlib.ExitStack], None]
) -> None:
    """Its stream waits: the server computes what the sockets' buffers hold and no more, and serves the others."""
    process = psutil.Process(server.process.pid)
    before, memory = server.computed, process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(STREAMS):
            unread(server, stack)
        until(lambda: server.inside == STREAMS, "every stream inside")
        asked = until_others_alone_are_computed(server)
        # 200 items of a megabyte were asked for; a socket's buffers hold some, and a stream one or two more.
        assert STREAMS <= server.computed - before - asked < 100
        assert process.memory_info().rss - memory < 100e6


def until_others_alone_are_computed(server: Serving) -> int:
    """Ask until so many requests in a row got no item of anybody else computed beside them; how many were asked.

    Of two turns a stream that goes on would have one.
    """
    asked = 0

    def nothing_else() -> bool:
        nonlocal asked
        at = server.computed
        for _ in range(OTHERS):
            ask(server)
        asked += OTHERS
        return server.computed == at + OTHERS

    until(nothing_else, "the end of what is computed for readers that take nothing")
    return asked
