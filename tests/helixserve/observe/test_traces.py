"""Spans as a collector receives them: real OTLP/HTTP, real protobuf."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.helixserve.observe.conftest import CANARY, COUNTS, PARENT, REFUSED, TRACE, Asked, Receiver


@pytest.fixture(scope="module")
def spans(asked: Asked, receiver: Receiver) -> list[Any]:
    receiver.wait(len(COUNTS) + REFUSED)
    return receiver.spans


def attributes(span: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        values = getattr(pair.value, kind)
        found[pair.key] = [item.string_value for item in values.values] if kind == "array_value" else values
    return found


def requests(spans: list[Any]) -> list[Any]:
    return [span for span in spans if span.kind == span.SPAN_KIND_SERVER]


def test_every_endpoint_continues_the_callers_trace(spans: list[Any]) -> None:
    by_endpoint = {attributes(span)["helix.endpoint"]: span for span in requests(spans)}
    assert set(by_endpoint) >= set(COUNTS)
    for span in requests(spans):
        assert span.trace_id.hex() == TRACE
        assert span.parent_span_id.hex() == PARENT


@pytest.mark.parametrize("endpoint", COUNTS)
def test_a_request_has_its_phases_below_it_and_names_its_predictions(
    spans: list[Any], asked: Asked, endpoint: str
) -> None:
    (request,) = [
        span
        for span in requests(spans)
        if attributes(span)["helix.endpoint"] == endpoint and attributes(span)["helix.status"] == "OK"
    ]
    parts = [span for span in spans if span.parent_span_id == request.span_id]
    assert {part.name for part in parts} == {"queue", "resolve", "compute", "record"}
    assert attributes(request)["helix.prediction_ids"] == asked.ids[endpoint]
    recorded = [attributes(part)["helix.prediction_ids"] for part in parts if part.name == "record"]
    assert [name for names in recorded for name in names] == asked.ids[endpoint]
    for part in parts:
        assert part.trace_id == request.trace_id
        assert request.start_time_unix_nano <= part.start_time_unix_nano
        assert part.start_time_unix_nano <= part.end_time_unix_nano <= request.end_time_unix_nano


def test_a_refused_request_is_an_error(spans: list[Any]) -> None:
    refused = [span for span in requests(spans) if span.status.code == span.status.STATUS_CODE_ERROR]
    assert len(refused) == REFUSED
    assert {span.status.message for span in refused} == {"INVALID_ARGUMENT", "INTERNAL"}


def test_the_resource_names_the_model_and_no_span_holds_a_value(receiver: Receiver, spans: list[Any]) -> None:
    assert {resource["service.name"] for resource in receiver.resources} == {"helix-tiny"}
    assert not [body for body in receiver.bodies if CANARY.encode() in body]


def test_nothing_of_it_is_loaded_where_no_endpoint_is_named() -> None:
    program = (
        "import sys, helixserve.observe.observer\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
