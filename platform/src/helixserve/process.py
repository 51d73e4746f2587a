"""What a serving process sets up for itself: an end with its parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """When BentoML's supervisor started this worker, be terminated with it.

    `kill -9` of the supervisor would leave the worker serving and holding its shard. TERM lets it
    finish what it accepted. Without a supervisor (`python -m helixserve serve`) nothing is set:
    a container runtime may well end after it has started its process.
    """
    if not supervised():
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died in between, so no signal will come
        os.kill(os.getpid(), signal.SIGTERM)


def on_terminate(action: Callable[[], None]) -> None:
    """Call `action` in the running event loop at the first SIGTERM, before whoever handles it now.

    asyncio's own way would replace the HTTP server's handler, which must still run.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop, handler = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def both(number: int, frame: FrameType | None) -> None:
        signal.signal(number, handler)
        loop.call_soon_threadsafe(action)
        if callable(handler):
            handler(number, frame)
        else:
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, both)


def supervised() -> bool:
    """Whether BentoML's supervisor started this process."""
    from bentoml._internal.context import server_context  # noqa: PLC0415  # only where BentoML is loaded anyway

    return server_context.worker_index is not None
