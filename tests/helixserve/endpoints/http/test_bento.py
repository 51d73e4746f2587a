"""BentoML's endpoint, asked over the wire."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException

from helix_lineage.shard.reader import Log
from helixserve.endpoints.http.bento import render
from helixserve.execution.core import Answer
from helixserve.model.contract import Contract
from helixserve.model.tensors import from_value
from tests.helixserve.support import Serving

GOOD = {"values": [1, 2.5, -3], "seed": 5}


def post(server: Serving, path: str, **more: Any) -> httpx.Response:
    return httpx.post(server.url + path, timeout=60, **more)


def test_a_list_is_answered_as_a_list_whatever_its_length(contract: Contract) -> None:
    item = (from_value("projected", "FP32", [1.5]), from_value("total", "FP64", 2.5))
    answer = Answer(contract.task("project"), "id", 5, (item,), ("shard.1",))
    assert render(answer)["predictions"] == [{"prediction_id": "shard.1", "projected": [1.5], "total": 2.5}]


def test_the_stock_client_knows_the_fields_and_gets_items(tiny: Serving) -> None:
    with bentoml.SyncHTTPClient(tiny.url) as client:
        answer = client.project(values=[1, 2], repeats=2, seed=5, words=["å", "b"])
    assert answer["seed"] == 5
    assert [item["label"] for item in answer["predictions"]] == ["å/b/ø0", "å/b/ø1"]


def test_the_request_id_is_the_headers_and_the_logs(tiny: Serving, log: Log) -> None:
    response = post(tiny, "/project", json=GOOD)
    shard, sequence = log.find(response.json()["predictions"][0]["prediction_id"])
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert shard.prediction(sequence).request_id.hex() == response.json()["request_id"]


def test_a_drawn_seed_is_returned_recorded_and_gives_the_same_again(tiny: Serving, log: Log) -> None:
    first = post(tiny, "/project", json={"values": [1]}).json()
    again = post(tiny, "/project", json={"values": [1], "seed": first["seed"]}).json()
    shard, sequence = log.find(first["predictions"][0]["prediction_id"])
    assert shard.prediction(sequence).seed == first["seed"]
    assert first["predictions"][0]["projected"] == again["predictions"][0]["projected"]
    assert first["predictions"][0]["prediction_id"] != again["predictions"][0]["prediction_id"]


def test_null_means_not_given_and_seed_zero_is_a_seed(tiny: Serving) -> None:
    answers = [post(tiny, "/project", json={**GOOD, "seed": 0, "words": None}).json() for _ in range(2)]
    assert answers[0]["seed"] == 0
    assert answers[0]["predictions"][0]["projected"] == answers[1]["predictions"][0]["projected"]


def test_what_may_be_null_is_described_as_openapi_describes_it(tiny: Serving) -> None:
    document = httpx.get(f"{tiny.url}/openapi.json").json()
    assert document["openapi"].startswith("3.1"), "an earlier version has no type of null"
    request = document["paths"]["/project"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    nullable = {name for name, field in request["properties"].items() if "null" in field["type"]}
    assert nullable == set(request["properties"]) - {"values"}
    fields = httpx.get(f"{tiny.url}/schema.json").json()
    (fields,) = [route["input"]["properties"] for route in fields["routes"] if route["name"] == "project"]
    single = [name for name in nullable if fields[name]["type"] != "array"]
    with bentoml.SyncHTTPClient(tiny.url) as client:  # which takes null for no list, whatever is described
        assert client.project(values=[1], **dict.fromkeys(single))["predictions"]
    assert post(tiny, "/project", json={"values": [1], **dict.fromkeys(nullable)}).status_code == 200
    assert post(tiny, "/project", json={"values": None}).status_code == 400


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "values"),
    ({"values": "text"}, 400, "values"),
    ({"values": [1, "2"]}, 400, "values"),
    ({"values": [[1]]}, 400, "values"),
    ({"values": [1e39]}, 400, "values"),
    ({"values": [1] * 9}, 413, "values"),
    ({**GOOD, "repeats": 51}, 400, "repeats"),
    ({**GOOD, "repeats": 1.5}, 400, "repeats"),
    ({**GOOD, "repeats": True}, 400, "repeats"),
    ({**GOOD, "seed": -1}, 400, "seed"),
    ({**GOOD, "seed": 2**64}, 400, "seed"),
    ({**GOOD, "scale": 11}, 400, "scale"),
    ({**GOOD, "pairs": [[1, 2, 3]]}, 400, "pairs"),
    ({**GOOD, "words": "one"}, 400, "words"),
    ({**GOOD, "repeats": [2]}, 400, "repeats"),
    ({**GOOD, "words": [1]}, 400, "words"),
    ({**GOOD, "unheard": 1}, 400, "unheard"),
    ({**GOOD, "task": "measure"}, 400, "task"),
    ({**GOOD, "fault": "raise"}, 500, "project"),
    ({**GOOD, "fault": "nan"}, 500, "projected"),
]


@pytest.mark.parametrize(("body", "status", "where"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_request_is_refused_with_a_sentence_that_names_the_field(
    tiny: Serving, body: dict[str, Any], status: int, where: str
) -> None:
    response = post(tiny, "/project", json=body)
    assert response.status_code == status
    if status != 200:
        assert response.json()["where"] == where
        assert len(response.json()["error"]) > len(where)
        assert "secrets" not in response.text
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"a"', b"\xff\xfe", b"null", b"[" * 9000], ids=repr)
def test_a_body_that_is_no_json_object_is_refused(tiny: Serving, content: bytes) -> None:
    response = post(tiny, "/project", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["where"] in ("body", "values")


def test_an_oversized_body_is_refused_and_the_server_goes_on(tiny: Serving) -> None:
    response = post(tiny, "/project", json={"values": [1], "words": ["x" * 30_000]})
    assert response.status_code == 413
    assert "20000 bytes" in response.json()["error"]
    assert post(tiny, "/project", json=GOOD).status_code == 200


def test_an_oversized_body_of_unknown_length_is_refused(tiny: Serving) -> None:
    response = post(tiny, "/project", content=(b"x" * 1000 for _ in range(100)))
    assert response.status_code == 413


def test_the_stock_client_raises_on_a_refusal(tiny: Serving) -> None:
    with bentoml.SyncHTTPClient(tiny.url) as client, pytest.raises(BentoMLException, match="values"):
        client.project(values=[1] * 9)


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


ROUTES = [
    "/project", "/project/stream", "/measure", "/measure/stream", "/",
    "/v2", "/v2/models/tiny-project/infer", "/v2/models/tiny-project/versions/3/infer",
    "/v2/health/ready", "/v2/helix/receipts/x",
    "/docs", "/docs/page.js", "/docs/page.css", "/openapi.json",
    "/v2/repository/index", "/v2/models/tiny-project/config",
    "/schema.json", "/docs.json", "/metrics", "/readyz", "/livez", "/healthz", "/project/submit", "/x",
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_pickle_is_closed_on_every_route(tiny: Serving, tmp_path: Path, route: str) -> None:
    canary = tmp_path / "canary"
    body = pickle.dumps(Canary(canary))
    pickled = {"content-type": "application/vnd.bentoml+pickle"}
    with httpx.Client(base_url=tiny.url) as client:
        for headers in (pickled, pickled | {"buffer-lengths": str(len(body))}):
            for method in ("POST", "GET"):
                assert client.request(method, route, content=body, headers=headers).status_code == 415
        for headers in ({"content-type": "application/json"}, {}):
            client.post(route, content=body, headers=headers)
    assert not canary.exists()
    pickle.loads(body)  # noqa: S301  # the canary sings when somebody does unpickle it
    assert canary.exists()


def test_every_route_of_the_service_stands_in_the_list_above(tiny: Serving) -> None:
    served = set(httpx.get(tiny.url + "/schema.json").json()["paths"])
    assert {path for path in served if "{" not in path} <= set(ROUTES) | {"/v2/health/live"}


def test_urls_are_not_fetched(tiny: Serving) -> None:
    """BentoML's own parsing follows URLs in some bodies; ours takes them for text or refuses them."""
    response = post(tiny, "/measure", json={"text": f"{tiny.url}/livez"})
    assert response.json()["predictions"][0]["length"] == len(f"{tiny.url}/livez")
    assert post(tiny, "/measure", content=f"{tiny.url}/livez".encode()).status_code == 400
    assert post(tiny, "/measure", files={"text": b"a"}).status_code == 415


def test_health_and_documents_are_served(tiny: Serving) -> None:
    for path in ("/readyz", "/livez", "/healthz", "/metrics", "/docs.json", "/schema.json"):
        assert httpx.get(tiny.url + path).status_code == 200, path
    document = httpx.get(tiny.url + "/docs.json").json()
    assert document == httpx.get(tiny.url + "/openapi.json").json()
    asked = document["paths"]["/project"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"]["repeats"]["description"] == "Items."
    assert asked["properties"]["values"]["items"] == {"type": "number", "minimum": -1e6, "maximum": 1e6}
