"""Bodies and messages that would not fit in the pod's memory: real servers, both attacks at full size.

The process itself may take 1 GiB; where a memory cgroup can be made, it runs inside one as well.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from helixserve.errors import OverloadedError
from helixserve.execution.budget import DEFAULT_BYTES, Budget, memory_bytes
from tests.helixserve import support
from tests.helixserve.support import Serving
from tests.waiting import LONGEST_S, until

MEMORY = 1 << 30
ALLOWED = MEMORY * 7 // 10
LIMIT = 16_000_000
LARGE = 15_900_000
HEAD = b"POST /measure HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
CGROUP = Path("/sys/fs/cgroup/memory")
NEVER_REFUSES = """
from helixserve.execution.budget import Budget, Reservation
Budget.check = lambda *_, **__: None
Reservation.grow = lambda *_: None
"""


@contextlib.contextmanager
def bounded(folder: Path, weaken: str = "") -> Iterator[Serving]:
    """The small model with the large limit of ProteinMPNN; `weaken` plants a fault in its process."""
    place = support.make_tiny(folder)
    contract = place.home / "model" / "model.toml"
    contract.write_text(contract.read_text().replace("request_bytes = 20000", f"request_bytes = {LIMIT}"))
    service = place.home / "model" / "src" / "tiny_model" / "service.py"
    service.write_text(service.read_text() + weaken)
    support.publish(place, "tiny")
    with support.serving(place, HELIX_MEMORY_BYTES=str(MEMORY)) as server, contextlib.ExitStack() as stack:
        if not weaken:  # a fault would be killed there
            stack.enter_context(confined(server))
        yield server


@contextlib.contextmanager
def confined(server: Serving) -> Iterator[None]:
    """The server in a memory cgroup of the pod's size, where this machine lets us make one (version 1, root)."""
    group = CGROUP / f"helix-test-{server.process.pid}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(MEMORY))
        (group / "cgroup.procs").write_text(str(server.process.pid))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield
        return
    try:
        yield
    finally:
        server.stop()
        group.rmdir()


def peak(server: Serving) -> int:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


WHOLE = "room for a body of the largest size"


def whole_again(server: Serving) -> bool:
    """Whether the budget has room for a body of the largest size."""
    body = b"[" + b" " * (LARGE - 2) + b"]"
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.post(f"{server.url}/measure", content=body, timeout=60)
        return answer.status_code == 400  # it was read and parsed
    return False


def unfinished(server: Serving, count: int = 80) -> Counter[bytes]:
    """Send bodies that lack their last byte, each as far as the server takes it, and count the answers."""
    found: Counter[bytes] = Counter()
    with contextlib.ExitStack() as stack:
        left = {}
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=60))
            peer.sendall(HEAD % (LARGE + 1))
            peer.setblocking(False)
            left[peer] = LARGE
        chunk = b" " * (1 << 18)

        def sent() -> bool:
            _, ready, _ = select.select([], [peer for peer, more in left.items() if more], [], 1)
            for peer in ready:
                try:
                    left[peer] -= peer.send(chunk[: left[peer]])
                except ConnectionError:
                    left[peer] = 0
            return not any(left.values())

        until(sent, "bodies that are sent or refused")
        small = httpx.post(f"{server.url}/measure", json={"text": "a"}, timeout=60)
        found[b"healthy" if small.status_code == 200 else small.content] += 1
        for peer in left:
            with contextlib.suppress(OSError):
                found[peer.recv(4096)[:12]] += 1
    return found


def test_unfinished_bodies_stay_within_the_memory_of_a_pod(tmp_path: Path) -> None:
    with bounded(tmp_path) as server:
        found = unfinished(server)
        assert found[b"healthy"] == 1, found
        assert found[b"HTTP/1.1 503"] >= 40, found
        assert peak(server) < ALLOWED
        until(lambda: whole_again(server), WHOLE)
        assert peak(server) < ALLOWED


def test_a_budget_that_never_refuses_is_seen(tmp_path: Path) -> None:
    """The planted fault."""
    with bounded(tmp_path, NEVER_REFUSES) as server:
        assert unfinished(server)[b"HTTP/1.1 503"] == 0
        assert peak(server) > ALLOWED


@pytest.mark.parametrize("size", [60_000_000, LARGE], ids=["refused by size", "just below the limit"])
def test_large_messages_stay_within_the_memory_of_a_pod(tmp_path: Path, size: int) -> None:
    found: Counter[grpc.StatusCode] = Counter()
    data = b"\x1a\x80\xf8\xc9\x07" + b"a" * size  # an id, whose length is not this one: no message

    def send(payload: bytes = data, method: str = "inference.GRPCInferenceService/ModelInfer") -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.grpc, options) as channel:
            try:
                channel.unary_unary(f"/{method}")(payload, timeout=60)
                found[grpc.StatusCode.OK] += 1
            except grpc.RpcError as error:
                found[error.code()] += 1  # type: ignore[attr-defined]  # a call, which the stub hides

    with bounded(tmp_path) as server:
        threads = [threading.Thread(target=send) for _ in range(20)]
        for thread in threads:
            thread.start()
        send(b"", "grpc.health.v1.Health/Check")
        for thread in threads:
            thread.join()
        assert found[grpc.StatusCode.OK] == 1
        assert set(found) <= {
            grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT,
        }  # fmt: skip
        if size > LIMIT:
            assert found[grpc.StatusCode.RESOURCE_EXHAUSTED] == 20
        assert peak(server) < ALLOWED
        until(lambda: whole_again(server), WHOLE)


def test_what_is_unpacked_counts(tmp_path: Path) -> None:
    import gzip  # noqa: PLC0415

    packed = gzip.compress(b"[" + b" " * (LARGE - 2) + b"]")
    found: Counter[int] = Counter()
    headers = {"content-encoding": "gzip"}
    with bounded(tmp_path) as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=60))
            head = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
            peer.sendall(head % (len(packed) + 1) + packed)
        until(
            lambda: httpx.post(f"{server.url}/measure", content=packed, headers=headers, timeout=60).status_code == 503,
            "a budget that is spent",
        )
        found[httpx.post(f"{server.url}/measure", json={"text": "a"}, timeout=60).status_code] += 1
        assert found == {200: 1}
        assert peak(server) < ALLOWED


NO_COUNT = """
import helixserve.endpoints.values
helixserve.endpoints.values.VALUES = 1 << 60
"""
LISTS = b'{"text": [' + (b"[" * 13 + b"]" * 13 + b",") * (LARGE // 27 - 1) + b"0]}"
INPUTS = b"\x0a\x0ctiny-measure" + b"\x2a\x00" * (LARGE // 2 - 10)
"""A ModelInferRequest of eight million empty inputs."""


def ask_json(server: Serving, path: str, *, packed: bool) -> str:
    import gzip  # noqa: PLC0415

    headers = {"content-encoding": "gzip"} if packed else {}
    body = gzip.compress(LISTS) if packed else LISTS
    return httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=60).text


def ask_grpc(server: Serving, method: str, *, stream: bool) -> str:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        kind = channel.stream_unary if stream else channel.unary_unary
        try:
            kind(f"/inference.GRPCInferenceService/{method}")(iter([INPUTS]) if stream else INPUTS, timeout=60)
        except grpc.RpcError as error:
            return str(error.details())  # type: ignore[attr-defined]  # a call, which the stub hides
    return "answered"


def of_many_values(server: Serving) -> list[str]:
    """What is said of requests of a legal size that hold millions of lists or tensors, at each endpoint."""
    return [
        ask_json(server, "/measure", packed=False),
        ask_json(server, "/measure/stream", packed=True),
        ask_json(server, "/v2/models/tiny-measure/infer", packed=True),
        ask_json(server, "/v2/repository/index", packed=False),
        ask_grpc(server, "ModelInfer", stream=False),
        ask_grpc(server, "ModelStreamInfer", stream=True),
    ]


def test_millions_of_small_values_stay_within_the_memory_of_a_pod(tmp_path: Path) -> None:
    with bounded(tmp_path) as server:
        before = peak(server)
        for said in of_many_values(server):
            assert "holds more than 100000 values" in said
        # Bodies and what is unpacked of them, but no object for each value.
        assert peak(server) - before < 10 * LARGE


def test_values_that_nobody_counts_are_seen(tmp_path: Path) -> None:
    """The planted fault."""
    with bounded(tmp_path, NO_COUNT) as server:
        assert "values" not in ask_json(server, "/measure", packed=False)
        assert peak(server) > ALLOWED


def test_small_requests_keep_some_room_and_everything_is_given_back() -> None:
    budget = Budget(MEMORY, 1_000_000)
    with contextlib.ExitStack() as stack:
        with pytest.raises(OverloadedError):
            while True:
                stack.enter_context(budget.hold()).grow(1_000_000)
        held = budget.held
        with budget.hold() as small:
            small.grow(1000)
            assert budget.held == held + 1000
        assert budget.held == held <= budget.size
    assert budget.held == 0


def test_one_request_of_the_largest_size_always_fits() -> None:
    budget = Budget(1, 1_000_000)
    with budget.hold() as hold:
        for _ in range(1000):
            hold.grow(1000)
        with pytest.raises(OverloadedError):
            budget.check(1_000_000, of=1_000_000)


def test_the_memory_is_what_the_setting_or_the_cgroup_says(tmp_path: Path) -> None:
    assert memory_bytes(5 << 30, tmp_path) == 5 << 30
    assert memory_bytes(None, tmp_path) == DEFAULT_BYTES
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_bytes(None, tmp_path) == DEFAULT_BYTES
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{2 << 30}\n")
    assert memory_bytes(None, tmp_path) == 2 << 30
    (tmp_path / "memory.max").write_text(f"{3 << 30}\n")
    assert memory_bytes(None, tmp_path) == 3 << 30
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(None, tmp_path) == 2 << 30


def test_calls_that_never_send_their_message_keep_health_from_nobody(tmp_path: Path) -> None:
    """They wait for their turn among themselves; the planted fault is one kind of turn for all calls."""
    gone = threading.Event()

    def nothing() -> Iterator[bytes]:
        gone.wait()
        yield from ()

    with bounded(tmp_path) as server, grpc.insecure_channel(server.grpc) as channel:
        ask = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        silent = [ask.future(nothing()) for _ in range(16)]
        try:
            for method in ("/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive"):
                assert channel.unary_unary(method)(b"", timeout=LONGEST_S) == b"\x08\x01"
            assert not any(call.done() for call in silent), "health was answered while they waited"
        finally:
            gone.set()
            for call in silent:
                call.cancel()
