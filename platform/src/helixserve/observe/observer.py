"""Tells metrics, traces and logs of each request."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from helixserve.errors import HelixServeError, NotReadyError
from helixserve.model.contract import Contract
from helixserve.observe import logs
from helixserve.observe.call import CANCELLED, INTERNAL, Call
from helixserve.observe.metrics import Metrics
from helixserve.settings import Settings

if TYPE_CHECKING:
    from helixserve.observe.traces import Tracer

_TRACEPARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Observer:
    """One per server."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.shard: Callable[[], str | None] = lambda: None
        """The shard that is being written, once there is one."""
        self._tracer: Tracer | None = None

    def configure(self, contract: Contract) -> None:
        """Set up this process's logs, and traces where the environment names an endpoint."""
        try:
            settings = Settings.read()
        except NotReadyError:  # the server says so itself, at every endpoint
            logs.configure(logs.FORMATS[0])
            return
        logs.configure(settings.log_format)
        if settings.traced:
            from helixserve.observe.traces import Tracer  # noqa: PLC0415  # costs memory and time, so only where wanted

            self._tracer = Tracer(f"helix-{contract.name}", contract.version)

    def began(self, call: Call) -> None:
        """A request is about to be served."""
        call.traced = self._tracer is not None

    def ended(self, call: Call) -> None:
        """A request has its answer, or never will."""
        self.metrics.count(call)
        if call.traceparent and (given := _TRACEPARENT.fullmatch(call.traceparent)):
            call.trace_id = given[1]
        if self._tracer is not None:
            self._tracer.export(call)
        logs.line(call, self.shard())

    def close(self) -> None:
        """Send what waits; blocks."""
        if self._tracer is not None:
            self._tracer.close()

    @contextlib.contextmanager
    def seen(self, call: Call) -> Iterator[Call]:
        """A request that is served inside; what is raised says how it ended."""
        self.began(call)
        try:
            yield call
        except HelixServeError as error:
            call.status = error.grpc_status
            raise
        except asyncio.CancelledError:
            call.status = CANCELLED
            raise
        except Exception:  # counted as a fault of the server, and passed on
            call.status = INTERNAL
            raise
        finally:
            call.end()
            self.ended(call)
