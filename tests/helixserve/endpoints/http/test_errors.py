"""Whatever path or method is asked for, an error is JSON."""

from __future__ import annotations

import httpx
import pytest

from tests.helixserve import support
from tests.helixserve.support import Serving

UNKNOWN = [
    "/x", "/project/x", "/project/submit", "/v2/x", "/v2/models", "/v2/models/tiny-project/x", "/v2/models/x/y/config",
    "/v2/repository/models/tiny-project/load", "/static_content/main.css", "/static_content/index.css", "/docs/x",
    "/assets/x", "/v2/health", "/v2/health/live/x", "/v2/helix/receipts", "/favicon.ico",
]  # fmt: skip
OTHER_METHOD = [
    ("GET", "/project"), ("PUT", "/project/stream"), ("POST", "/v2"), ("GET", "/v2/models/tiny-project/infer"),
    ("GET", "/v2/repository/index"), ("POST", "/docs"), ("DELETE", "/openapi.json"), ("POST", "/metrics"),
    ("OPTIONS", "/project"), ("PATCH", "/livez"), ("POST", "/"), ("POST", "/schema.json"),
]  # fmt: skip


def check(response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error", "where", "fix"}
    assert len(response.json()["error"]) > 20


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_answered_in_json(tiny: Serving, method: str, path: str) -> None:
    check(httpx.request(method, tiny.url + path), 404)


@pytest.mark.parametrize(("method", "path"), OTHER_METHOD)
def test_another_method_is_answered_in_json(tiny: Serving, method: str, path: str) -> None:
    response = httpx.request(method, tiny.url + path)
    check(response, 405)
    assert response.headers["allow"]


def test_an_unready_server_says_why_in_json(place: support.Place) -> None:
    place.release.unlink()
    with support.serving(place) as server:
        for path in ("/readyz", "/v2/health/ready"):
            check(httpx.get(server.url + path), 503)
        index = httpx.post(f"{server.url}/v2/repository/index")
        assert {entry["state"] for entry in index.json()} == {"UNAVAILABLE"}
        assert all(entry["reason"] for entry in index.json())
        assert httpx.post(f"{server.url}/v2/repository/index", json={"ready": True}).json() == []
