"""Bursts of connections, at real sockets: how many the kernel keeps, and how many are open at once.

What slow and silent clients may do is tried at whole servers: `tests/helixserve/endpoints/test_connections.py`,
`tests/helix_lineage/directory/test_registering.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import uvicorn
from uvicorn.server import ServerState

from helix_lineage.directory import connections
from helix_lineage.directory.connections import BACKLOG, QUEUE, BoundedProtocol, LongQueueLoop
from tests.waiting import until_async

BURST = 300


class Counted(BoundedProtocol):
    """Counts the connections that are open."""

    most: ClassVar[int] = 16
    now: ClassVar[int] = 0
    highest: ClassVar[int] = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        Counted.now += 1
        Counted.highest = max(Counted.highest, Counted.now)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        Counted.now -= 1
        super().connection_lost(exc)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def listening(loop: asyncio.AbstractEventLoop) -> Iterator[tuple[str, int]]:
    """A server that accepts while the loop runs."""
    config = uvicorn.Config(answer, http=Counted, lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def made() -> Counted:
        return Counted(config=config, server_state=state, app_state={}, _loop=loop)

    with contextlib.closing(loop):
        server = loop.run_until_complete(loop.create_server(made, "127.0.0.1", 0, backlog=BACKLOG))
        try:
            yield server.sockets[0].getsockname()
        finally:
            server.close()


@contextlib.contextmanager
def burst(address: tuple[str, int]) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.socket()) for _ in range(BURST)]
        for peer in peers:
            peer.setblocking(False)
            peer.connect_ex(address)
        yield peers


def connected(peer: socket.socket) -> bool:
    try:
        peer.getpeername()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("loop", "whole"), [(LongQueueLoop, True), (asyncio.SelectorEventLoop, False)])
def test_the_kernel_keeps_a_burst_until_it_is_accepted(loop: type[asyncio.AbstractEventLoop], whole: bool) -> None:
    """The planted fault is asyncio's own loop: whoever comes after its few waits a second and more."""
    assert BURST < QUEUE
    with listening(loop()) as address, burst(address) as peers:
        time.sleep(0.2)
        assert all(map(connected, peers)) is whole


def test_each_newcomer_of_a_burst_makes_another_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several come in one turn of the loop. All of them once chose the same victim, and file descriptors ran out."""
    monkeypatch.setattr(Counted, "now", 0)
    monkeypatch.setattr(Counted, "highest", 0)
    loop = LongQueueLoop()
    with listening(loop) as address, burst(address), socket.create_connection(address) as last:
        last.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        last.setblocking(False)
        # Behind all of them, and answered.
        answered = loop.run_until_complete(asyncio.wait_for(loop.sock_recv(last, 1000), 60))
        assert answered.startswith(b"HTTP/1.1 200")
        assert Counted.most < Counted.highest <= Counted.most + 3 * BACKLOG
        loop.run_until_complete(until_async(lambda: Counted.now == Counted.most, "those that leave"))


def test_file_descriptors_are_left_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, expected in ((1024, 384), (1 << 20, connections.CONNECTIONS), (64, 16), (-1, connections.CONNECTIONS)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.connection_limit() == expected
