"""Slow, silent and half-open clients: real sockets against a real server, with a healthy client beside them."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.helixserve.support import Place, Serving, serving
from tests.waiting import LONGEST_S

CLIENT_S = 2
KEPT_S = CLIENT_S + 2.5  # so long a server without deadlines is watched
BODY = json.dumps({"values": [1], "words": ["x" * 18_000], "repeats": 50}).encode()
HEAD = b"POST /project HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def silent(_: socket.socket) -> None:
    """Connects, and says nothing: a peer that vanished looks the same."""


def slow_headers(peer: socket.socket) -> None:
    peer.sendall(b"POST /project HTTP/1.1\r\nhost: x\r\nx-slow: ")


def slow_body(peer: socket.socket) -> None:
    peer.sendall(HEAD % 10_000 + b'{"values"')


def second_request_slow(peer: socket.socket) -> None:
    peer.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"200" in peer.recv(4096)
    peer.sendall(b"GET /livez HTTP/1.1\r\nhost")


def never_reading(peer: socket.socket) -> None:
    """Asks for more than the kernel buffers between us hold."""
    peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(16):
            peer.sendall(HEAD % len(BODY) + BODY)


ATTACKS = (silent, slow_headers, slow_body, second_request_slow, never_reading)
TRICKLING = (slow_headers, slow_body)


@contextlib.contextmanager
def attacking(server: Serving, attack: Callable[[socket.socket], None], count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        peers = []
        for _ in range(count):
            peer = stack.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", server.http_port))
            attack(peer)
            peers.append(peer)
        yield peers


def dropped(peer: socket.socket) -> bool:
    """Has the server given this connection up?"""
    with contextlib.suppress(BlockingIOError):
        try:
            while peer.recv(1 << 16, socket.MSG_DONTWAIT):
                pass
        except ConnectionError:
            pass
        return True
    return False


def ends(peer: socket.socket) -> bool:
    """The same for a peer that begins to read only now: what the kernel still has is followed by an end."""
    peer.settimeout(1)
    try:
        while peer.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def held(server: Serving, peer: socket.socket) -> bool:
    """Does the server still have its end of the connection? Asked without reading, which would be progress."""
    serving_process = psutil.Process(server.process.pid)
    processes = [serving_process, *serving_process.children(recursive=True)]
    ends_of_peers = {pair.raddr[1] for process in processes for pair in process.net_connections("tcp") if pair.raddr}
    return peer.getsockname()[1] in ends_of_peers


def all_dropped(
    server: Serving, attack: Callable[[socket.socket], None], count: int = 20, seconds: float = LONGEST_S
) -> bool:
    """The check: is every attacker gone when it should be, though it trickles a byte now and then?"""
    with attacking(server, attack, count) as peers:
        until = time.monotonic() + seconds
        gone = (lambda peer: not held(server, peer)) if attack is never_reading else dropped
        while time.monotonic() < until and not all(map(gone, peers)):
            if attack in TRICKLING:
                for peer in peers:
                    with contextlib.suppress(OSError):
                        peer.send(b"x")
            time.sleep(0.25)
        return all(map(ends if attack is never_reading else dropped, peers))


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    from tests.helixserve import support  # noqa: PLC0415

    place = support.make_tiny(tmp_path_factory.mktemp("bounded"))
    with serving(place, HELIX_CLIENT_SECONDS=str(CLIENT_S)) as server:
        yield server


def latencies(server: Serving, count: int = 30) -> list[float]:
    found = []
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(count):
            started = time.perf_counter()
            assert client.post("/project", json={"values": [1]}).status_code == 200
            found.append(time.perf_counter() - started)
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_client_that_takes_too_long_is_dropped(bounded: Serving, attack: Callable[[socket.socket], None]) -> None:
    assert all_dropped(bounded, attack, 2 if attack is never_reading else 20)
    assert httpx.get(f"{bounded.url}/readyz").status_code == 200


def test_without_deadlines_the_same_clients_stay(place: Place) -> None:
    """The planted fault: as patient as uvicorn is by itself, the server keeps them, and the check sees it."""
    with serving(place, HELIX_CLIENT_SECONDS="3600") as server:
        assert not all_dropped(server, slow_headers, count=2, seconds=KEPT_S)
        server.process.kill()


def test_a_healthy_client_waits_for_none_of_them(bounded: Serving) -> None:
    with contextlib.ExitStack() as stack:
        for attack in ATTACKS:
            if attack is not never_reading:  # whose requests are computed, and so compete rightly
                stack.enter_context(attacking(bounded, attack, 60))
        beside = latencies(bounded)
    # Loose, because the machine is shared; a server that waits for slow clients takes as long as they may.
    assert statistics.median(beside) < CLIENT_S


FLOOD = """
import resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
peers = []
for port in sys.argv[2:]:
    for _ in range(int(sys.argv[1])):
        peer = socket.socket()
        peer.setblocking(False)
        peer.connect_ex(("127.0.0.1", int(port)))
        peers.append(peer)
print("open", flush=True)
time.sleep(600)
"""


def test_thousands_of_idle_connections_leave_room_for_a_request(place: Place) -> None:
    """Patience is long here, so that only the limit on connections helps."""
    limited = [
        sys.executable,
        "-c",
        "import resource, os, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)); os.execv(sys.argv[1], "
        "sys.argv[1:])",
        sys.executable,
        "-m",
        "helixserve",
        "serve",
    ]
    with serving(place, *limited, HELIX_CLIENT_SECONDS="3600") as server:
        argv = [sys.executable, "-c", FLOOD, "3000", str(server.http_port), str(server.grpc_port)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as flood:
            try:
                assert flood.stdout is not None
                assert flood.stdout.readline() == b"open\n"
                latencies(server)  # each request is answered, within its 30 seconds
                with grpc.insecure_channel(server.grpc) as channel:
                    check = health_pb2_grpc.HealthStub(channel).Check
                    # gRPC refuses newcomers instead; a client retries until idle ones are let go.
                    with contextlib.suppress(grpc.RpcError):
                        check(health_pb2.HealthCheckRequest(), timeout=2)
                assert httpx.get(f"{server.url}/readyz").status_code == 200
            finally:
                flood.kill()
        with grpc.insecure_channel(server.grpc) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=30, wait_for_ready=True
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_idle_grpc_streams_hold_up_neither_calls_nor_the_end(place: Place) -> None:
    with serving(place) as server, contextlib.ExitStack() as stack:
        watched = []
        for _ in range(8):
            channel = stack.enter_context(grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]))
            stub = health_pb2_grpc.HealthStub(channel)
            watched += [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(64)]
        for watch in watched[::64]:
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with grpc.insecure_channel(server.grpc) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 30  # the streams are idle for ever
