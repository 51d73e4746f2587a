"""The server's own documentation: `/docs` for people, `/openapi.json` for programs, and `/` leads there.

The page is made once, on the server. Its style and its script are this server's too, and a policy in
its header keeps the browser from asking any other host.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Collection, Iterator
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from helixserve.endpoints.http.api_document import document
from helixserve.endpoints.http.errors import speak_json
from helixserve.model.contract import Contract

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_FILES = importlib.resources.files("helixserve.endpoints.http") / "pages"


def application(contract: Contract, routed: Collection[str]) -> Starlette:
    """The ASGI application of the documentation; `routed` are the task paths that the service has."""
    described = document(contract, routed)
    page = render(described)

    async def specification(_: Request) -> Response:
        return JSONResponse(described)

    async def index(_: Request) -> Response:
        return RedirectResponse("docs")  # relative: a proxy may serve all of this below a prefix

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/docs", _giving(page, "text/html")),
            Route("/docs/page.css", _giving((_FILES / "page.css").read_bytes(), "text/css")),
            Route("/docs/page.js", _giving((_FILES / "page.js").read_bytes(), "text/javascript")),
            Route("/openapi.json", specification),
            Route("/docs.json", specification),  # where BentoML has its own
        ]
    )
    speak_json(app)
    return app


def render(described: dict[str, Any]) -> bytes:
    """The page of an OpenAPI document."""
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (_FILES / "page.html").read_text(encoding="utf-8")
    )
    return template.render(info=described["info"], groups=_groups(described)).encode()


def _giving(content: bytes, media_type: str) -> Any:
    async def give(_: Request) -> Response:
        return Response(content, media_type=f"{media_type}; charset=utf-8", headers=_HEADERS)

    return give


def _groups(described: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Tag → operations, as the template shows them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append(_shown(path, method, operation))
    return found


def _shown(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    answers = operation["responses"]["200"].get("content", {})
    return {
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "parameters": operation.get("parameters", []),
        "body": None if body is None else json.dumps(body.get("example", {}), indent=2, ensure_ascii=False),
        "inputs": list(_fields(body["schema"])) if body else [],
        "answers": {kind: json.dumps(value["schema"], indent=2) for kind, value in answers.items()},
        "statuses": {status: answer["description"] for status, answer in operation["responses"].items()},
    }


def _fields(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        kinds = field.get("type", "any")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        if kind == "array" and "type" in field["items"]:
            kind = f"list of {field['items']['type']}"
        default = json.dumps(field["default"]) if "default" in field else ""
        limits = [f"{word} {field[key]:g}" for key, word in (("minimum", "≥"), ("maximum", "≤")) if key in field]
        yield {
            "name": name,
            "kind": kind,
            "need": "required" if name in required else default and f"default {default}",
            "limits": ", ".join(limits),
            "summary": field.get("description", ""),
        }
