"""Ports for servers that tests start: no two tests get the same one, whichever process they run in."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _EACH = 16_000, 4_000
"""Below those that the kernel gives to whoever connects (from 32768 on): no client takes one before its server does."""


def _numbers() -> itertools.cycle[int]:
    # Workers of pytest-xdist are called gw0, gw1, …
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    start = _FIRST + worker * _EACH
    # Two runs of pytest at once begin at different places.
    offset = os.getpid() % _EACH
    return itertools.cycle([start + (offset + at) % _EACH for at in range(_EACH)])


_ports = _numbers()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that no other test was given lately."""
    for port in itertools.islice(_ports, _EACH):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
