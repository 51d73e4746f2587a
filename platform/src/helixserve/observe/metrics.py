"""Prometheus metrics: counted in this process, rendered when somebody scrapes.

BentoML keeps metrics in files, for many workers; a server is one process, so plain numbers do, and
a request costs a few additions. What is a state and not a count is asked for at the scrape.
Labels are endpoints, tasks, statuses and phases: all of them known beforehand, none an untrusted client's text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from helixserve.observe.call import Call

REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Bounds of the buckets of requests and their phases, in seconds."""
FSYNC_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a server is at the moment of a scrape."""

    ready: bool
    waiting: int = 0
    """Requests that wait or run."""
    entries: int = 0
    """Of the shard."""
    shard_bytes: int = 0
    info: Mapping[str, str] = field(default_factory=dict)
    """Model, release, image, shard, machine class."""


class Histogram:
    """Counts of seconds. One thread writes."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def samples(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets as Prometheus has them, each with all below it, and the sum."""
        total, buckets = 0, []
        for bound, count in zip([*map(str, map(float, self._bounds)), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._sum


class Metrics(Collector):
    """One server's."""

    def __init__(self) -> None:
        self.fsync = Histogram(FSYNC_S)
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._items: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], Histogram] = defaultdict(_histogram)
        self._phases: defaultdict[str, Histogram] = defaultdict(_histogram)
        self._state = ServerState(ready=False)

    def count(self, call: Call) -> None:
        """A request has ended."""
        self._requests[call.endpoint, call.task, call.status] += 1
        self._items[call.endpoint, call.task] += len(call.prediction_ids)
        self._seconds[call.endpoint, call.task].observe(call.total_seconds)
        for phase, seconds in call.seconds.items():
            self._phases[phase].observe(seconds)

    def text(self, state: ServerState) -> str:
        """Everything, in Prometheus' text format."""
        self._state = state
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client renders."""
        requests = CounterMetricFamily("helix_requests", "Requests that ended.", labels=["endpoint", "task", "status"])
        for labels, count in sorted(self._requests.items()):
            requests.add_metric(labels, count)
        items = CounterMetricFamily("helix_items", "Predictions given.", labels=["endpoint", "task"])
        for place, count in sorted(self._items.items()):
            items.add_metric(place, count)
        seconds = HistogramMetricFamily("helix_request_seconds", "Whole requests.", labels=["endpoint", "task"])
        for place, histogram in sorted(self._seconds.items()):
            seconds.add_metric(place, *histogram.samples())
        phases = HistogramMetricFamily("helix_phase_seconds", "Parts of a request's time.", labels=["phase"])
        for phase, histogram in sorted(self._phases.items()):
            phases.add_metric([phase], *histogram.samples())
        fsync = HistogramMetricFamily("helix_fsync_seconds", "Syncs of the shard's files.")
        fsync.add_metric([], *self.fsync.samples())
        yield from (requests, items, seconds, phases, fsync)
        yield from self._of_state(self._state)

    def _of_state(self, state: ServerState) -> Iterator[Metric]:
        yield GaugeMetricFamily("helix_ready", "Whether requests should be sent here.", value=state.ready)
        yield GaugeMetricFamily("helix_queue_depth", "Requests that wait or run.", value=state.waiting)
        yield CounterMetricFamily("helix_recorded_entries", "Entries of the shard.", value=state.entries)
        yield GaugeMetricFamily(
            "helix_shard_bytes",
            "The shard's journal and payload on the disk, with the zeros preallocated.",
            value=state.shard_bytes,
        )
        yield InfoMetricFamily("helix_release", "What is served.", value=dict(state.info))


def _histogram() -> Histogram:
    return Histogram(REQUEST_S)
