"""The image that is served: three endpoints, the same typed bytes, and the log commits to them."""

from __future__ import annotations

import contextlib
import http.client
import json
import string
from typing import Any

import httpx
import pytest

from helix_lineage.shard.entries import commitment
from helix_lineage.shard.reader import Log
from tests.clients import ENDPOINTS, Address
from tests.end_to_end.conftest import ROOT, Serving
from tests.waiting import LONGEST_S, until

UBIQUITIN = (ROOT / "models/proteinmpnn/golden/1ubi.pdb").read_text()


def copies(structure: str) -> str:
    """The structure as chains A to Z, 40 Å apart: of ubiquitin 1,976 residues, nearly as many as the model takes."""
    atoms = [line for line in structure.splitlines() if line.startswith("ATOM")]
    return "\n".join(
        f"{atom[:21]}{chain}{atom[22:30]}{float(atom[30:38]) + 40 * at:8.3f}{atom[38:]}"
        for at, chain in enumerate(string.ascii_uppercase)
        for atom in atoms
    )


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "design": ("design", {"structure": UBIQUITIN, "num_sequences": 2, "seed": 7}),
    "design with options": (
        "design",
        {"structure": UBIQUITIN, "seed": 0, "temperature": 0.3, "fixed_positions": ["A:1", "A:48"], "omit": "CX"},
    ),
    "score": ("score", {"structure": UBIQUITIN, "seed": 7}),
    "design of as many residues as may be": ("design", {"structure": copies(UBIQUITIN), "seed": 7}),
    "score of as many residues as may be": ("score", {"structure": copies(UBIQUITIN), "seed": 7}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_endpoint_gives_the_bytes_that_the_log_commits_to(serving: Serving, address: Address, name: str) -> None:
    task, request = REQUESTS[name]
    outputs, inputs = set(), set()
    for endpoint, ask in ENDPOINTS.items():
        items = ask(address, task, request)
        assert len(items) == request.get("num_sequences", 1)
        for prediction, again in items:
            shard, sequence = Log(serving.log).find(prediction)
            entry, kept = shard.prediction(sequence), shard.payload(sequence)
            assert kept.output_salt is not None
            assert commitment(kept.output_salt, again) == entry.output_commitment, endpoint
            inputs.add(kept.input)
        outputs.add(tuple(again for _, again in items))
    assert len(outputs) == 1
    assert len(inputs) == 1, "the recorded input must not depend on the endpoint"


@pytest.mark.parametrize(
    ("request_values", "says"),
    [
        ({"structure": "no structure at all"}, "structure"),
        ({"structure": UBIQUITIN, "num_sequences": 0}, "num_sequences"),
        ({"structure": UBIQUITIN, "chains": ["Q"]}, "chain"),
        ({"structure": UBIQUITIN, "seed": -1}, "seed"),
        ({}, "structure"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_that_helps(
    address: Address, request_values: dict[str, Any], says: str
) -> None:
    response = httpx.post(f"{address.http}/design", json=request_values)
    assert 400 <= response.status_code < 500
    assert says in response.text


def test_a_client_that_fills_every_optional_field_with_null_is_answered(address: Address) -> None:
    """As pydantic clients send it."""
    tensor = {"name": "structure", "datatype": "BYTES", "shape": [1], "data": [UBIQUITIN], "parameters": None}
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor]}
    response = httpx.post(f"{address.http}/v2/models/proteinmpnn-design/infer", json=body, timeout=60)
    assert response.status_code == 200, response.text


def test_every_example_of_the_documentation_is_answered(address: Address) -> None:
    assert "proteinmpnn" in httpx.get(f"{address.http}/docs").text
    assert httpx.get(f"{address.http}/docs/page.js").status_code == 200
    posts = {
        path: methods["post"]["requestBody"]["content"]["application/json"]["example"]
        for path, methods in httpx.get(f"{address.http}/openapi.json").json()["paths"].items()
        if "post" in methods
    }
    assert {"/design", "/design/stream", "/score", "/v2/models/proteinmpnn-design/infer"} <= set(posts)
    for path, example in posts.items():
        response = httpx.post(address.http + path, json=example, timeout=60)
        assert response.status_code == 200, (path, response.text)


def test_the_image_runs_as_nobody_and_cannot_write_its_root(serving: Serving) -> None:
    status = httpx.get(f"{serving.server.http}/v2/health/ready")
    assert status.status_code == 200
    header = Log(serving.log).shard(Log(serving.log).shard_ids()[0]).header
    assert header.image == serving.server.image == serving.released.image
    assert header.mode == "local"
    owner = next(serving.log.iterdir()).stat().st_uid
    assert owner == 65532


NOTICED = "the server's notice that the client is gone"


def inside(address: Address) -> int:
    """Requests that were accepted and are not answered yet."""
    told = httpx.get(f"{address.http}/metrics", timeout=LONGEST_S).text
    return int(float(told.split("\nhelix_queue_depth ")[1].split()[0]))


def test_a_client_that_hangs_up_stops_the_designing_and_keeps_what_it_was_given(
    serving: Serving, address: Address
) -> None:
    def recorded() -> int:
        (shard,) = Log(serving.log).shard_ids()
        return len(list(Log(serving.log).shard(shard).predictions()))

    body = {"structure": UBIQUITIN, "num_sequences": 1000, "seed": 1}
    before = recorded()
    with httpx.stream("POST", f"{address.http}/design/stream", json=body, timeout=60) as response:
        assert response.status_code == 200
        first = json.loads(next(response.iter_lines()))
    until(lambda: inside(address) == 0, NOTICED)
    at = recorded()
    assert 0 < at - before < 1000
    shard, sequence = Log(serving.log).find(first["prediction"]["prediction_id"])
    assert shard.prediction(sequence).index == 0
    # A whole answer: nothing of it is recorded, and the next request need not wait for it.
    with contextlib.closing(http.client.HTTPConnection(address.http.removeprefix("http://"))) as connection:
        connection.request("POST", "/design", json.dumps(body), {"content-type": "application/json"})
        until(lambda: inside(address) == 1, "an accepted request")
    until(lambda: inside(address) == 0, NOTICED)
    one = httpx.post(f"{address.http}/design", json={**body, "num_sequences": 1}, timeout=LONGEST_S)
    assert one.status_code == 200
    assert recorded() == at + 1
