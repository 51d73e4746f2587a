"""What a slow, silent or greedy client may hold of a serving process: uvicorn's settings, and gRPC's.

HELIX_CLIENT_SECONDS is how long a client may take; `helix_lineage.directory.connections` says for what.
"""

from __future__ import annotations

import uvicorn.config

from helix_lineage.directory.connections import BoundedProtocol, LongQueueLoop, connection_limit

STREAMS = 256
"""Calls that one gRPC connection may have open."""


def bound_http(client_s: float) -> None:
    """Let uvicorn make bounded connections: BentoML's worker asks it for `auto`, and has no option for another."""
    BoundedProtocol.client_s = client_s
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{BoundedProtocol.__module__}:{BoundedProtocol.__name__}"
    uvicorn.config.LOOP_FACTORIES["auto"] = f"{__name__}:{_loop_factory.__name__}"


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


def _loop_factory(use_subprocess: bool = False) -> type[LongQueueLoop]:  # noqa: ARG001  as uvicorn calls it
    return LongQueueLoop
