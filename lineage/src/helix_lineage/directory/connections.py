"""What a slow, silent or greedy client of an HTTP server may hold: connections with deadlines, and file descriptors.

uvicorn bounds only the pause between two requests. Here a request must arrive within a while, an answer
be taken within as long, and when there are too many connections the one that has waited longest without
a whole request goes, so that a newcomer with a request gets in.

Needs uvicorn; the directory's server and `helixserve` import it, and no command of an auditor's does.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SWEEP_S = 0.5
CONNECTIONS = 2000
"""Most connections of one port, where there are file descriptors enough."""
BACKLOG = 32
"""Connections that asyncio accepts at once; what uvicorn is told as its backlog. Three times as many are open before
the first of them has made another one leave."""
QUEUE = 4096
"""Connections that the kernel keeps until they are accepted. It allows net.core.somaxconn at most (4096 by default)."""
_RESERVED = 256
"""File descriptors for everything else: what was just accepted, libraries, segments, tiles, threads' pipes."""

_sweepers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = WeakKeyDictionary()


class LongQueueLoop(asyncio.SelectorEventLoop):
    """An event loop whose listening sockets have a long queue, though it accepts few at once.

    asyncio has one number for both. With 32, a burst of connections fills the queue, and the kernel drops
    whoever comes then: their packets are sent again after 1, 3, 7, 15 and 31 seconds, a healthy client's too.
    With 4096, so many would be accepted at once that no file descriptors are left.
    """

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """Listen as asyncio does; then make the queue longer."""
        server = await super().create_server(*arguments, **options)
        for listener in server.sockets:
            with socket.socket(fileno=os.dup(listener.fileno())) as same:
                same.listen(QUEUE)
        return server


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with an end to everybody's patience."""

    client_s: ClassVar[float] = 20.0
    """From a connection's or request's first byte to its last; and from when an answer waits until it has left."""
    most: ClassVar[int] = CONNECTIONS
    """Connections, where there are file descriptors enough."""

    _reading_since: float | None = None
    """When what is being received began; None between requests and while one is answered."""
    _writing_since: float | None = None
    """When the oldest byte that the client has not taken was written, as far as the sweeps saw."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection; make room first when there are too many."""
        super().connection_made(transport)
        self._reading_since = self.loop.time()
        if len(self.connections) > connection_limit(self.most):
            waiting: list[Any] = [item for item in self.connections if isinstance(item, BoundedProtocol) and item.idle]
            # This one waits too, but for the shortest time.
            longest = min(waiting, key=lambda item: item.waiting_since)
            # It stays a turn of the loop longer: the next of this turn's newcomers would choose it again.
            self.connections.discard(longest)
            longest.transport.abort()
        if self.loop not in _sweepers:
            self._plan()

    def data_received(self, data: bytes) -> None:
        """Read, and note whether a request is still incomplete."""
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        """The next request may have begun to arrive already."""
        super().on_response_complete()
        self._note()

    @property
    def idle(self) -> bool:
        """Whether no whole request is being answered."""
        return self._reading_since is not None or self.cycle is None or self.cycle.response_complete

    @property
    def waiting_since(self) -> float:
        """When it began to keep us waiting; a connection between two requests comes first."""
        return self._reading_since or 0.0

    def sweep(self, now: float) -> None:
        """Drop the client that takes too long."""
        pending = self.transport.get_write_buffer_size()
        self._writing_since = (self._writing_since or now) if pending else None
        for since in (self._reading_since, self._writing_since):
            if since is not None and now - since > self.client_s:
                self.transport.abort()

    def _note(self) -> None:
        state = self.conn.their_state
        partial = state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        self._reading_since = (self._reading_since or self.loop.time()) if partial else None

    def _should_upgrade_to_ws(self) -> bool:
        return False  # another protocol class would take the connection out of these limits

    def _plan(self) -> None:
        _sweepers[self.loop] = self.loop.call_later(SWEEP_S, self._sweep_all)

    def _sweep_all(self) -> None:
        """All connections of this server, one after the other; each is a few comparisons."""
        now = self.loop.time()
        for connection in list(self.connections):
            if isinstance(connection, BoundedProtocol):
                connection.sweep(now)
        self._plan()


def raise_descriptor_limit() -> None:
    """Use as many file descriptors as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connection_limit(most: int = CONNECTIONS) -> int:
    """How many connections a port takes: two of them together leave file descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = most if soft == resource.RLIM_INFINITY else (soft - _RESERVED) // 2
    return max(16, min(most, spare))
