"""Streams over HTTP, asked over the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from tiny_model.model import Tiny

from helix_lineage.shard.reader import Log
from helixserve.endpoints.http import json_lines as endpoint
from helixserve.errors import GoneError
from helixserve.execution.core import Core
from helixserve.model.contract import Contract
from helixserve.model.tensors import from_value
from helixserve.observe.call import Call
from tests.helixserve.support import Memory, Serving, tiny_graph
from tests.waiting import LONGEST_S


def lines(server: Serving, body: dict[str, Any], path: str = "/project/stream") -> list[dict[str, Any]]:
    response = httpx.post(server.url + path, json=body, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_stream_holds_the_predictions_of_the_whole_answer(tiny: Serving, log: Log) -> None:
    body = {"values": [1, 2.5, -3], "seed": 5, "repeats": 4, "words": ["å"]}
    whole = httpx.post(f"{tiny.url}/project", json=body).json()
    streamed = lines(tiny, body)
    assert [(line["index"], line["count"], line["seed"]) for line in streamed] == [(i, 4, 5) for i in range(4)]
    for line, expected in zip(streamed, whole["predictions"], strict=True):
        shard, sequence = log.find(line["prediction"].pop("prediction_id"))
        entry = shard.prediction(sequence)
        assert (entry.index, entry.request_id.hex()) == (line["index"], line["request_id"])
        expected.pop("prediction_id")
        assert line["prediction"] == expected


def test_each_line_comes_when_its_item_is_ready(tiny: Serving) -> None:
    body = {"values": [1], "repeats": 3}
    with (
        tiny.holding(after=1),
        httpx.stream("POST", f"{tiny.url}/project/stream", json=body, timeout=LONGEST_S) as response,
    ):
        for index, line in enumerate(response.iter_lines()):
            assert json.loads(line)["index"] == index
            tiny.let(1)  # the next one is not computed before: a line that was held back would never come
    assert index == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"values": [1] * 9}, 413),
        ({}, 400),
        ({"values": [1], "fault": "nan"}, 500),
        ({"values": [1], "unheard": 1}, 400),
    ],
)
def test_an_error_before_the_first_item_is_the_answers_status(tiny: Serving, body: dict[str, Any], status: int) -> None:
    response = httpx.post(f"{tiny.url}/project/stream", json=body)
    assert response.status_code == status
    assert set(response.json()) == {"error", "where", "fix"}
    assert len(response.headers["x-request-id"]) == 32


def test_an_error_after_it_is_the_last_line(tiny: Serving) -> None:
    first, last = lines(tiny, {"values": [1], "repeats": 3, "fault": "shape"})
    assert first["index"] == 0
    assert "shape" in last["error"]


def test_the_route_is_documented(tiny: Serving) -> None:
    documents = httpx.get(f"{tiny.url}/docs.json").json()
    content = documents["paths"]["/project/stream"]["post"]["responses"]["200"]["content"]
    ((media_type, described),) = content.items()
    assert media_type == "application/x-ndjson"
    assert {"index", "count", "prediction", "seed", "request_id"} <= set(described["schema"]["properties"])


def test_a_reader_that_takes_nothing_for_too_long_loses_its_stream(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "STALL_S", 0.1)
    model = Tiny.load({"tiny.onnx": tiny_graph()}, contract)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def read() -> Core:
        core = Core(model, Memory())
        call = Call()
        endpoint.CALL.set(call)
        tensors = [from_value("values", "FP32", [1]), from_value("repeats", "INT64", 50)]
        answer = endpoint.JsonLinesResponse(
            core.stream("project", tensors, call.request_id, call), lambda item: {"index": item.index}
        )
        with pytest.raises(GoneError, match="took nothing"):
            await answer({"type": "http"}, None, send)  # type: ignore[arg-type]
        return core

    core = asyncio.run(read())
    assert core.inside == 0
    assert model.computed <= 2
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
