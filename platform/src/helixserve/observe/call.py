"""One request as metrics, traces and logs see it: which endpoint, which task, how it ended, where its time went.

Endpoints open a call and say how it ended; the core says what it computed and recorded. Nothing here
holds a value of the request or of the answer: no sequence, no structure.

>>> call = Call("grpc")
>>> began = call.now()
>>> call.spent("compute", began) >= began
True
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

OK, CANCELLED, INTERNAL = "OK", "CANCELLED", "INTERNAL"
"""Statuses are gRPC's names, at every endpoint."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a request's time, for its trace."""

    name: str
    began_ns: int
    ended_ns: int
    prediction_ids: tuple[str, ...]


@dataclass(slots=True)
class Call:
    """What is seen of one request."""

    endpoint: str = ""
    """Which endpoint it came through; empty while nobody has taken it, and then it is not counted."""
    request_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    traceparent: str | None = None
    """The header of W3C Trace Context, as it came."""
    traced: bool = False
    """Whether somebody wants the phases one by one."""
    trace_id: str = ""
    """32 hex digits, where it is part of a trace."""
    task: str = ""
    status: str = OK
    began_ns: int = field(default_factory=time.time_ns)
    """By the host's clock."""
    ended_ns: int = 0
    prediction_ids: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Phase (`queue`, `resolve`, `compute`, `record`) → its seconds."""
    phases: list[Phase] = field(default_factory=list)
    """Only of a call that is traced."""
    _anchor: int = field(default_factory=time.perf_counter_ns)

    def now(self) -> int:
        """Nanoseconds since 1970 by a clock that never steps while the call lasts."""
        return self.began_ns + time.perf_counter_ns() - self._anchor

    def spent(self, phase: str, began_ns: int, prediction_ids: Sequence[str] = ()) -> int:
        """The time since `began_ns` was `phase`'s; gives the time now."""
        now = self.now()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + (now - began_ns) / 1e9
        if self.traced:
            self.phases.append(Phase(phase, began_ns, now, tuple(prediction_ids)))
        return now

    def end(self) -> None:
        """The answer has left, or never will."""
        self.ended_ns = self.now()

    @property
    def total_seconds(self) -> float:
        """From the first byte to the last."""
        return (self.ended_ns - self.began_ns) / 1e9
