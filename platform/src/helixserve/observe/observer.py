"""Tells metrics, traces and logs of each request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from helixserve.errors import HelixServeError
from helixserve.observe.call import CANCELLED, INTERNAL, Call


class Observer:
    """One per server."""

    def began(self, call: Call) -> None:
        """A request is about to be served."""

    def ended(self, call: Call) -> None:
        """A request has its answer, or never will."""

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
        except Exception:
            call.status = INTERNAL
            raise
        finally:
            call.end()
            self.ended(call)
