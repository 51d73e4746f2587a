"""How many bytes of unanswered requests this process keeps, over all its endpoints.

The memory that it may use (HELIX_MEMORY_BYTES, else the cgroup's limit, else what a pod has) gives
three shares: bytes that are kept, bytes of gRPC messages that are being read, and bytes that open
gRPC streams may send. Whoever finds no room is refused, and nothing of it is kept. A request gives
back what it holds when it ends, however it ends.

>>> budget = Budget(1 << 30, largest=1000)
>>> with budget.hold() as hold:
...     hold.grow(600)
...     budget.held
600
>>> budget.held
0
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType

from helixserve.errors import OverloadedError

DEFAULT_BYTES = 1 << 30
"""What a pod has (gitops/argocd/base/statefulset.yaml)."""
SMALL = 64 * 1024
"""A request of at most so many bytes may use the room that is kept from larger ones."""
FRAMING = 64 * 1024
"""What a gRPC message may have beyond the largest body: then we say what is wrong, not gRPC."""

_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_LEAST = 64 << 20


def memory_bytes(configured: int | None, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory that this process may use. A container sees its own limit at the root of the cgroups."""
    if configured is not None:
        return configured
    for name in _LIMITS:
        try:
            text = (cgroup / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        # `max`, or version 1's largest number of pages, says that there is no limit.
        if text.isdigit() and _LEAST <= int(text) < 1 << 60:
            return int(text)
    return DEFAULT_BYTES


class Budget:
    """Counts what requests hold; for one event loop.

    Args:
        memory: what the whole process may use, in bytes.
        largest: the largest request that is served; one always fits.
    """

    def __init__(self, memory: int, largest: int) -> None:
        self.held = 0
        self.size = max(memory // 12, largest + 2 * SMALL)
        """Bodies and messages that came. A request's copies while it is parsed come on top, so it is a small part."""
        message = largest + FRAMING
        turns = max(2, memory // 16 // message)
        self.reading = asyncio.Semaphore(turns)
        """Calls for answers whose message gRPC may be collecting; its size is known only when it is there."""
        self.asking = asyncio.Semaphore(turns)
        """The same of all other calls (health, metadata), which must not wait for those."""
        self.streams = max(2, memory // 8 // message)
        """Open gRPC streams: each may send a message at any time."""

    def hold(self) -> Reservation:
        """Nothing yet, for one request."""
        return Reservation(self)

    def check(self, more: int, *, of: int) -> None:
        """Raises OverloadedError when `more` bytes of a request that then has `of` find no room now."""
        # Some room is for small requests alone, so that large ones can't keep everybody out.
        kept = 0 if of <= SMALL else min(self.size // 8, 2 * SMALL)
        if self.held + more > self.size - kept:
            raise OverloadedError("too many bytes of requests are in memory", where="body", fix="retry in a second")


class Reservation:
    """What one request holds of a budget; a context manager that gives it back."""

    def __init__(self, budget: Budget) -> None:
        self.size = 0
        self._budget = budget

    def grow(self, size: int) -> None:
        """Hold so many bytes more. Raises OverloadedError, and then holds no more than before."""
        self._budget.check(size, of=self.size + size)
        self.size += size
        self._budget.held += size

    def release(self) -> None:
        """Hold nothing."""
        self._budget.held -= self.size
        self.size = 0

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()
