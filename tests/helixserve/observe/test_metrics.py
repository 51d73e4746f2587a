"""Metrics of a server that was asked at every endpoint, scraped and parsed as Prometheus does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from helix_lineage.shard.reader import Log
from helixserve.observe.call import Call
from helixserve.observe.metrics import Histogram, Metrics, ServerState
from tests.helixserve.observe.conftest import CANARY, COUNTS, Asked


@pytest.fixture(scope="module")
def scraped(asked: Asked) -> dict[str, Any]:
    response = httpx.get(f"{asked.server.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert CANARY not in response.text
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def value(families: dict[str, Any], family: str, name: str, **labels: str) -> float:
    (found,) = [sample.value for sample in families[family].samples if sample.name == name and sample.labels == labels]
    return float(found)


def test_requests_and_items_are_counted_by_endpoint_task_and_status(scraped: dict[str, Any]) -> None:
    for endpoint, count in COUNTS.items():
        place = {"endpoint": endpoint, "task": "project"}
        assert value(scraped, "helix_requests", "helix_requests_total", **place, status="OK") == 1
        assert value(scraped, "helix_items", "helix_items_total", **place) == count
    bad = {"endpoint": "json", "task": "project"}
    assert value(scraped, "helix_requests", "helix_requests_total", **bad, status="INVALID_ARGUMENT") == 3
    assert value(scraped, "helix_requests", "helix_requests_total", **bad, status="INTERNAL") == 1
    assert (
        value(scraped, "helix_requests", "helix_requests_total", endpoint="http", task="", status="INVALID_ARGUMENT")
        == 1
    )
    assert value(scraped, "helix_request_seconds", "helix_request_seconds_count", **bad) == 5


def test_latency_is_split_into_its_phases(scraped: dict[str, Any]) -> None:
    for phase in ("queue", "resolve", "compute", "record"):
        count = value(scraped, "helix_phase_seconds", "helix_phase_seconds_count", phase=phase)
        spent = value(scraped, "helix_phase_seconds", "helix_phase_seconds_sum", phase=phase)
        assert count >= len(COUNTS), phase
        assert 0 < spent < 60, phase
        assert value(scraped, "helix_phase_seconds", "helix_phase_seconds_bucket", phase=phase, le="+Inf") == count


def test_the_shard_and_the_release_are_told(scraped: dict[str, Any], asked: Asked) -> None:
    (shard,) = Log(asked.server.place.log).shard_ids()
    opened = Log(asked.server.place.log).shard(shard)
    assert value(scraped, "helix_recorded_entries", "helix_recorded_entries_total") == opened.size
    assert value(scraped, "helix_shard_bytes", "helix_shard_bytes") >= opened.folder.journal.stat().st_size
    assert value(scraped, "helix_fsync_seconds", "helix_fsync_seconds_count") >= 2 * len(COUNTS)
    assert value(scraped, "helix_ready", "helix_ready") == 1
    assert value(scraped, "helix_queue_depth", "helix_queue_depth") == 0
    (info,) = scraped["helix_release_info"].samples
    assert info.labels["release"] == opened.header.release
    assert (info.labels["shard"], info.labels["model"]) == (shard, "tiny")


def test_paths_that_a_stranger_makes_up_leave_nothing_behind(asked: Asked) -> None:
    before = len(httpx.get(f"{asked.server.url}/metrics").text.splitlines())
    for number in range(20):
        httpx.get(f"{asked.server.url}/made-up-{number}")
    assert len(httpx.get(f"{asked.server.url}/metrics").text.splitlines()) == before


def test_a_server_that_is_not_ready_says_so() -> None:
    assert "\nhelix_ready 0.0\n" in Metrics().text(ServerState(ready=False))


def test_a_histogram_counts_each_value_in_the_bucket_that_holds_it() -> None:
    made = Histogram((0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 2):
        made.observe(seconds)
    assert made.samples() == ([("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)], 2.65)


def test_a_call_is_counted_as_it_ended() -> None:
    metrics, call = Metrics(), Call("grpc", task="design", status="CANCELLED")
    call.end()
    metrics.count(call)
    assert 'helix_requests_total{endpoint="grpc",status="CANCELLED",task="design"} 1.0' in metrics.text(
        ServerState(ready=True)
    )
