"""`python -m helixserve serve | replay`: the entry point of every image."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import sys
import tempfile
from typing import NoReturn

from helix_lineage.errors import HelixError
from helixserve.errors import NotReadyError
from helixserve.integrity import imports, prehash
from helixserve.runners import machine
from helixserve.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors go to standard error, with exit status 1."""
    parser = argparse.ArgumentParser(prog="helixserve", description="Serve a model, or replay what it served.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="verify the release, then serve over HTTP and gRPC")
    commands.add_parser("replay", help="answer one request from standard input again (CBOR in, CBOR out)")
    command = parser.parse_args(arguments).command
    imports.watch()  # before the model's code is imported
    # Before anything loads numpy; a process that this one starts inherits it.
    try:
        machine.pin_numpy()
        return serve(Settings.read()) if command == "serve" else replay(Settings.read())
    except HelixError as error:
        print(f"helixserve {command}: {error}", file=sys.stderr)  # noqa: T201  # a command's output
        return 1


def serve(settings: Settings) -> int:
    """Run BentoML's worker on the service that bentofile.yaml names, in this very process.

    `bentoml serve` would put a supervisor in front of the only worker: twice the memory, a control
    socket on the loopback without a password, and a worker that outlives it. The container's
    runtime is the supervisor here.
    """
    prehash.start(settings)
    signal.signal(signal.SIGTERM, _leave)  # until the server takes over: process 1 would ignore TERM
    gc.disable()  # nothing that is imported becomes garbage; `Server.start` turns it on again
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    metrics = tempfile.TemporaryDirectory(prefix="helix-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics.name  # BentoML keeps its metrics in files, as for many workers
    from _bentoml_impl.worker.service import main as worker  # noqa: PLC0415  # after the pin

    from helix_lineage.directory.connections import BACKLOG, raise_descriptor_limit  # noqa: PLC0415  # loads uvicorn
    from helixserve.endpoints import connections  # noqa: PLC0415  # the same

    raise_descriptor_limit()
    connections.bound_http(settings.client_s)
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.http_port))
    except OSError as error:
        raise NotReadyError(
            f"cannot listen on port {settings.http_port}: {error.strerror}", where="HELIX_HTTP_PORT"
        ) from error
    listener.set_inheritable(True)
    os.chdir(settings.model)
    with metrics:
        options = ["--fd", str(listener.detach()), "--backlog", str(BACKLOG)]
        worker([".", *options], standalone_mode=False)
    return 0


def replay(settings: Settings) -> int:
    """Answer one replay request."""
    from helixserve.execution import replay as again  # noqa: PLC0415  # loads numpy, so after the pin

    sys.stdout.buffer.write(again.run(settings, sys.stdin.buffer.read()))
    sys.stdout.buffer.flush()
    return 0


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    raise SystemExit(main())
