"""What a server writes: JSON lines that name every prediction and no value."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from helixserve.observe import logs
from helixserve.observe.call import Call
from tests.helixserve.observe.conftest import CANARY, TRACE, Asked
from tests.helixserve.support import Place, serving
from tests.waiting import LONGEST_S, until


@pytest.fixture(scope="module")
def lines(asked: Asked) -> list[dict[str, Any]]:
    return [json.loads(line) for line in asked.output.read_text().splitlines()]


def test_every_line_is_json_and_every_request_has_one(lines: list[dict[str, Any]], asked: Asked) -> None:
    ended = [line for line in lines if line["message"] == "request ended"]
    by_endpoint = {line["endpoint"]: line for line in ended}
    assert {endpoint: line["prediction_ids"] for endpoint, line in by_endpoint.items()} == asked.ids
    for line in ended:
        assert len(line["request_id"]) == 32
        assert (line["task"], line["status"], line["trace_id"]) == ("project", "OK", TRACE)
        assert line["shard"] == line["prediction_ids"][0].partition(".")[0]
        parts = [line[f"{phase}_milliseconds"] for phase in ("queue", "resolve", "compute", "record")]
        assert 0 < max(parts) <= line["milliseconds"] < 60_000
    refused = [line["status"] for line in lines if line["message"] == "request refused"]
    assert sorted(refused) == ["INTERNAL", *["INVALID_ARGUMENT"] * 4]


def test_no_sequence_stands_in_them_whatever_went_wrong(asked: Asked, lines: list[dict[str, Any]]) -> None:
    text = asked.output.read_text()
    assert CANARY not in text
    assert "secrets" not in text, "the message of a model's exception may quote its input"
    (failed,) = [line for line in lines if "exception" in line]
    assert failed["exception"][0] == "ZeroDivisionError"
    assert any("_project" in place for place in failed["exception"])


def test_the_canary_would_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    """The check above bites: a line with a value in it holds the canary."""
    with caplog.at_level(logging.INFO, logger="helixserve.calls"):
        logging.getLogger("helixserve.calls").info("a request for %s", CANARY)
    (record,) = caplog.records
    assert CANARY in logs.JsonFormatter().format(record)


def test_text_is_for_people(place: Place) -> None:
    with serving(place, HELIX_LOG_FORMAT="text") as server:
        answer = httpx.post(f"{server.url}/project", json={"values": [1], "words": [CANARY]}, timeout=LONGEST_S).json()
        prediction = answer["predictions"][0]["prediction_id"]
        until(lambda: "request ended" in server.output.read_text(), "the line, which follows the answer")
        server.stop()
        written = server.output.read_text()
    (line,) = [line for line in written.splitlines() if "request ended" in line]
    assert f"prediction_ids={prediction}" in line
    assert "endpoint=json" in line
    assert not line.startswith("{")
    assert CANARY not in written


def test_a_line_names_so_many_ids_and_counts_all(caplog: pytest.LogCaptureFixture) -> None:
    call = Call("grpc", task="design", prediction_ids=[f"s.{number}" for number in range(1000)])
    call.end()
    with caplog.at_level(logging.INFO, logger="helixserve.calls"):
        logs.line(call, "s")
    value = json.loads(logs.JsonFormatter().format(caplog.records[0]))
    assert (value["items"], len(value["prediction_ids"])) == (1000, logs.IDS)


def test_an_exceptions_cause_is_named_by_type_and_place_only() -> None:
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise KeyError(CANARY) from error
    except KeyError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, (KeyError, error, None))
    for formatter in (logs.JsonFormatter(), logs.TextFormatter()):
        text = formatter.format(record)
        assert CANARY not in text
        assert "KeyError" in text
        assert "ValueError" in text
