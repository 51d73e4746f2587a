"""What every campaign of hostile cases counts and bounds: cases, seconds each, and the memory of what is attacked.

`CASES` are the numbers that `make test` runs and asserts; `make test-long` runs ten times as many.
All draw from fixed seeds, so that a case that fails, fails again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

CASES = {
    "http schema": 400,
    "http wire": 2000,
    "grpc messages": 1500,
    "grpc wire": 800,
    "pdb hypothesis": 500,
    "mmcif hypothesis": 500,
    "pdb atheris": 8000,
    "mmcif atheris": 8000,
    "planted files": 5200,
}
assert sum(CASES.values()) - CASES["http schema"] >= 20_000  # those of Schemathesis run in `make test-long`
LONG = 10
"""How many times as many a long campaign runs."""

SECONDS_EACH = 10.0
"""A case that takes longer hangs."""
GROWTH_BYTES = 48 << 20
"""What a process may grow after its warm-up: caches of others fill; a leak of a few kilobytes a case would show."""
WARM_UP = 0.3
"""The part of a campaign that fills caches."""


class Broken(AssertionError):
    """What was attacked crashed, hung, leaked, or called an untrusted client's fault its own."""


@dataclass
class Campaign:
    """Counts cases against one process."""

    name: str
    process: psutil.Process
    wanted: int
    count: int = 0
    slowest: float = 0.0
    warm: int = 0

    @classmethod
    def of(cls, name: str, pid: int | None = None, *, times: int = 1) -> Campaign:
        """The campaign of that name against a process; this one when missing."""
        return cls(name, psutil.Process(pid or os.getpid()), CASES[name] * times)

    @contextlib.contextmanager
    def case(self) -> Iterator[None]:
        """One case: what it raises goes through, what it takes is bounded."""
        started = time.monotonic()
        yield
        taken = time.monotonic() - started
        self.slowest = max(self.slowest, taken)
        self.count += 1
        if taken > SECONDS_EACH:
            raise Broken(f"{self.name}: case {self.count} took {taken:.1f} s")
        if self.count == int(WARM_UP * self.wanted):
            self.warm = self._memory()

    def finish(self) -> str:
        """Enough cases ran, and the process lives and has not grown; says so."""
        if self.count < self.wanted:
            raise Broken(f"{self.name}: {self.count} cases instead of {self.wanted}")
        grown = self._memory() - self.warm
        said = f"{self.name}: {self.count} cases, slowest {self.slowest:.2f} s, grew {grown / 2**20:.1f} MiB"
        print(said, file=sys.stderr, flush=True)
        if grown > GROWTH_BYTES:
            raise Broken(f"{said}, more than {GROWTH_BYTES >> 20}")
        return said

    def _memory(self) -> int:
        if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
            raise Broken(f"{self.name}: the process is gone")
        return int(self.process.memory_info().rss)
