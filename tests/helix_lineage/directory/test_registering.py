"""Registering with a directory as a process: by whom, how often, and where; bodies that come slowly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException
from typer.testing import CliRunner

from helix_lineage.cli.main import app
from helix_lineage.directory import server
from helix_lineage.directory.client import DirectoryClient
from helix_lineage.errors import DirectoryAway, DirectoryBusy, DirectoryError, DirectoryRefusal, RegistrantUnknown
from tests.helix_lineage.directory.support import TOKEN, Office, running

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_stranger_registers_nothing(office: Office) -> None:
    """The attack: whoever reached the port could register shards that never serve, and spoil every audit for good."""
    with running(office) as process:
        client = office.client(process.url)
        client.submit(office.released())
        body = office.shard().registration().to_bytes()
        for headers in ({}, {"authorization": "Bearer " + "x" * 64}, {"authorization": f"Basic {TOKEN}"}):
            answer = httpx.post(f"{process.url}/v1/shards", content=body, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "no token that this directory knows" in answer.json()["error"]
            assert TOKEN not in answer.text
        with pytest.raises(RegistrantUnknown, match="the directory refuses: no token"):
            office.client(process.url, token="x" * 40).take(office.shard().registration())
        assert client.latest().size == 1
        client.take(office.shard().registration())
        # A shard's key speaks for what follows, without a token.
        without = DirectoryClient(process.url, office.trust())
        without.take(office.shard().grow(3).advance(1))
        assert without.state(office.shard().id) is not None
        # The list is read again: a token that it no longer names opens nothing.
        (office.root / "registrants").write_text("")
        with pytest.raises(RegistrantUnknown):
            client.take(office.shard(51).registration())
        (office.root / "registrants").unlink()
        with pytest.raises(DirectoryAway, match="cannot read the file of registrants"):
            client.take(office.shard(51).registration())


def test_a_registrant_that_floods_is_told_to_wait(office: Office) -> None:
    """300 in 5 s: the log takes what a minute allows, and says when to ask again."""
    with running(office, 0, "--registrations", "20") as process:
        office.client(process.url).submit(office.released())
        statuses, waits = [], set()
        with httpx.Client(headers=HEADERS) as client:
            for at in range(300):
                body = office.shard(1000 + at).registration().to_bytes()
                answer = client.post(f"{process.url}/v1/shards", content=body)
                statuses.append(answer.status_code)
                waits.add(answer.headers.get("retry-after"))
        assert set(statuses) == {200, 429}
        assert statuses[:20] == [200] * 20
        assert waits <= {None, "1", "2", "3"}


def test_more_silent_connections_than_it_takes_keep_no_shard_out(office: Office) -> None:
    """The attack: 512 of them once made the directory answer 503 to everybody, as long as they stayed."""
    with running(office) as process, contextlib.ExitStack() as silent:
        address = ("127.0.0.1", httpx.URL(process.url).port or 0)
        for _ in range(700):
            silent.enter_context(socket.create_connection(address, 60))
        client = office.client(process.url)
        client.submit(office.released())
        client.take(office.shard().registration())
        assert httpx.get(f"{process.url}/healthz", timeout=60).json()["size"] == 2


IMPATIENT = """
import sys
from helix_lineage.cli.main import main
from helix_lineage.directory import server
server._Connection.client_s = float(sys.argv.pop(1))
main()
"""


@pytest.mark.parametrize(("patience_s", "gone"), [(0.5, True), (3600, False)])
def test_a_silent_connection_is_let_go(office: Office, patience_s: float, gone: bool) -> None:
    """The planted fault is a directory that waits for ever."""
    assert server._Connection.client_s > server._BODY_S, "who is slow with a body is told so first"
    with running(office, program=["-c", IMPATIENT, str(patience_s)]) as process:
        address = ("127.0.0.1", httpx.URL(process.url).port or 0)
        with socket.create_connection(address) as silent, socket.create_connection(address) as trickling:
            trickling.sendall(b"POST /v1/statements HTTP/1.1\r\nhost: x\r\nx-slow: ")
            for peer in (silent, trickling):
                peer.settimeout(60 if gone else 2)
                if gone:
                    with contextlib.suppress(ConnectionError):
                        assert peer.recv(1) == b""
                else:
                    with pytest.raises(TimeoutError):
                        peer.recv(1)
        assert httpx.get(f"{process.url}/healthz").status_code == 200


def test_a_directory_of_an_environment_refuses_mode_local(office: Office) -> None:
    with running(office, 0, "--environment", "staging", "--environment", "production") as process:
        client = office.client(process.url)
        client.submit(office.released())
        with pytest.raises(DirectoryRefusal, match="mode local: a shard without a promotion is not registered here"):
            client.take(office.shard().registration())
        bundle, name = office.promoted()
        client.submit(bundle)
        client.take(office.shard(mode="promoted", promotion=name, generation=1).registration())


def test_a_directory_without_registrants_does_not_start(office: Office) -> None:
    key, trust = office.write_keys()
    words = ["directory", "serve", office.folder, "--key", key, "--trust", trust, "--registrants", office.root / "none"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(done.exception, DirectoryError)
    assert done.exception.fix == "helix keys init"


class Slow:
    """A request whose body comes in pieces, and may not end."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self.chunks, self.ends = chunks, ends

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if not self.ends:
            await asyncio.Event().wait()


def test_bodies_are_bounded_in_time_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = server._Bodies()

    async def read(request: Any) -> bytes:
        return await bodies.read(request, 1000)

    async def together() -> None:
        held = asyncio.create_task(read(Slow(b"x" * 80, ends=False)))
        await asyncio.sleep(0)
        with pytest.raises(DirectoryBusy, match="too many requests"):
            await read(Slow(b"y" * 21))
        assert await read(Slow(b"y" * 20)) == b"y" * 20
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        assert bodies._bytes == 0

    monkeypatch.setattr(server, "_BODIES", 100)
    asyncio.run(together())
    monkeypatch.setattr(server, "_BODY_S", 0.0)
    with pytest.raises(HTTPException) as caught:
        asyncio.run(read(Slow(ends=False)))
    assert caught.value.status_code == 408
