"""Connections that say nothing, and bodies that never end, at a directory that is a process."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import httpx
import pytest

from helix_lineage.directory.server import CONNECTIONS
from tests.helix_lineage.directory.support import Office, Running, running
from tests.waiting import until

SILENT = b""
HALF = b"POST /v1/statements HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
MANY = 2 * CONNECTIONS


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def flood(stack: contextlib.ExitStack, process: Running, said: bytes) -> list[socket.socket]:
    """Connections that each send the same bytes, and stay open."""
    port = int(process.url.rpartition(":")[2])
    peers = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(MANY)]
    for peer in peers:
        with contextlib.suppress(OSError):  # it went already
            peer.sendall(said)
    return peers


def descriptors(process: Running) -> int:
    return len(list(Path(f"/proc/{process.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("said", [SILENT, b"GET /healthz HT", HALF], ids=["silent", "half a head", "half a body"])
def test_a_flood_of_waiting_connections_keeps_nobody_out(office: Office, said: bytes) -> None:
    with running(office) as process, contextlib.ExitStack() as stack:
        client = office.client(process.url)
        client.submit(office.released())
        flood(stack, process, said)
        assert httpx.get(f"{process.url}/healthz", timeout=30).json()["size"] == 1
        assert client.take(office.shard().registration()).index == 1
        until(lambda: descriptors(process) <= CONNECTIONS + 100, "waiting connections that go")


def test_a_body_that_is_cut_off_leaves_no_traceback(office: Office, capfd: pytest.CaptureFixture[str]) -> None:
    with running(office) as process, contextlib.ExitStack() as stack:
        flood(stack, process, HALF)
        stack.close()
        assert httpx.get(f"{process.url}/healthz", timeout=30).status_code == 200
    assert "Traceback" not in capfd.readouterr().err
