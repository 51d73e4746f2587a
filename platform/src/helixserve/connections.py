"""What a slow, silent or greedy client may hold: HTTP connections with deadlines, gRPC's limits, file descriptors.

uvicorn bounds only the pause between two requests. Here a request must arrive within a while
(HELIX_CLIENT_SECONDS), an answer be taken within as long, and when there are too many connections the
one that has waited longest without a whole request goes, so that a newcomer with a request gets in.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import h11
import uvicorn.config
from uvicorn.protocols.http.h11_impl import H11Protocol

SWEEP_S = 0.5
CONNECTIONS = 2000
"""Most connections of one door, where there are file descriptors enough."""
BACKLOG = 64
"""Connections that the kernel holds for us. asyncio takes as many at once, before it looks at any."""
_RESERVED = 256
"""File descriptors for everything else: the backlog, libraries, segments, tiles, threads' pipes."""
STREAMS = 256
"""Calls that one gRPC connection may have open."""

_sweepers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = WeakKeyDictionary()


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with an end to everybody's patience."""

    client_s: ClassVar[float] = 20.0
    """From a connection's or request's first byte to its last; and from when an answer waits until it has left."""

    _reading_since: float | None = None
    """When what is being received began; None between requests and while one is answered."""
    _writing_since: float | None = None
    """When the oldest byte that the client has not taken was written, as far as the sweeps saw."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection; make room first when there are too many."""
        super().connection_made(transport)
        self._reading_since = self.loop.time()
        if len(self.connections) > connection_limit():
            waiting: list[Any] = [item for item in self.connections if isinstance(item, BoundedProtocol) and item.idle]
            # This one waits too, but for the shortest time.
            min(waiting, key=lambda item: item.waiting_since).transport.abort()
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


def bound_http(client_s: float) -> None:
    """Let uvicorn make bounded connections: BentoML's worker asks it for `auto`, and has no option for another."""
    BoundedProtocol.client_s = client_s
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


def grpc_options(client_s: float) -> list[tuple[str, int]]:
    """Options of a gRPC server: a peer that is gone is noticed, one that says nothing is let go."""
    return [
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.server_handshake_timeout_ms", int(client_s * 1000)),
        ("grpc.http2.settings_timeout", int(client_s * 1000)),
        ("grpc.max_concurrent_streams", STREAMS),
        # What comes for a call that nobody reads yet stays this small: gRPC's own windows grow with the bandwidth.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65536),
        ("grpc.max_allowed_incoming_connections", connection_limit()),
    ]


def raise_descriptor_limit() -> None:
    """Use as many file descriptors as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connection_limit() -> int:
    """How many connections a door takes: both together leave file descriptors for the log."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = CONNECTIONS if soft == resource.RLIM_INFINITY else (soft - _RESERVED) // 2
    return max(16, min(CONNECTIONS, spare))
