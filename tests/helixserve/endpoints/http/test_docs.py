"""The documentation that a server shows of itself: complete, true, and from this server alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from helixserve.endpoints.http import docs
from helixserve.errors import ContractError
from helixserve.model.contract import Contract
from tests.browser import Browser, Page, running
from tests.helixserve import support
from tests.helixserve.support import ROOT, Serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def described(tiny: Serving) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{tiny.url}/openapi.json").json()
    return document


def test_title_and_version_are_the_models(described: dict[str, Any], contract: Contract) -> None:
    assert (described["info"]["title"], described["info"]["version"]) == (contract.name, contract.version)


def test_every_path_is_described(tiny: Serving, described: dict[str, Any]) -> None:
    """Those of BentoML's schema, and each that is described is served."""
    tasks = {route["route"] for route in httpx.get(f"{tiny.url}/schema.json").json()["routes"]}
    assert tasks == {"/project", "/project/stream", "/measure", "/measure/stream"}
    models = {f"/v2/models/tiny-{task}{version}{end}" for task in ("project", "measure")
              for version in ("", "/versions/3") for end in ("", "/ready", "/config", "/infer")}  # fmt: skip
    others = {"/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index", "/livez", "/healthz", "/readyz"}
    assert set(described["paths"]) == tasks | models | others | {"/metrics", "/v2/helix/receipts/{prediction_id}"}


def test_every_example_is_answered(tiny: Serving, described: dict[str, Any]) -> None:
    sent = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if "{" in path:
                continue  # only the owner of a prediction has its id and a token
            body = None
            if method == "post":
                body = operation["requestBody"]["content"]["application/json"]["example"]
                sent += 1
            answer = httpx.request(method, tiny.url + path, json=body, timeout=60)
            assert answer.status_code == 200, (path, answer.text)
            said = operation["responses"]["200"]["content"]
            assert answer.headers["content-type"].partition(";")[0] in said, path
    assert sent == 9


def test_the_contracts_examples_are_what_both_forms_ask(described: dict[str, Any], contract: Contract) -> None:
    for task in contract.tasks:
        wanted = contract.document["examples"][task]
        for path in (f"/{task}", f"/{task}/stream"):
            asked = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert asked["example"] == wanted


def test_every_model_of_ours_has_an_example_of_every_task() -> None:
    models = sorted(ROOT.glob("models/*/model.toml"))
    assert models
    for path in models:
        made = Contract.load(path)
        assert set(made.document["examples"]) == set(made.tasks), path
        for task, example in made.document["examples"].items():
            assert set(example) <= set(made.tasks[task].inputs)


def test_an_example_of_an_input_that_is_not_there_is_refused() -> None:
    text = (support.TINY / "model.toml").read_text().replace("measure = { text =", "measure = { txt =")
    with pytest.raises(ContractError, match=r"\[examples\] measure"):
        docs.document(Contract.parse(text), {"/measure"})


def complaints(page: Page, url: str) -> list[object]:
    others = [asked for asked in page.requests if not asked.startswith((f"{url}/", "data:"))]
    return [*page.complaints, *others]


SENT = """
(async () => {
  for (const form of document.querySelectorAll("form[data-path]")) {
    if (form.dataset.path.includes("{")) continue;
    form.closest("details").open = true;
    form.querySelector("button").click();
  }
  const done = () => [...document.querySelectorAll("output")].filter(o => /^[0-9]/.test(o.textContent)).length;
  const all = [...document.querySelectorAll("form")].filter(f => !f.dataset.path.includes("{")).length;
  while (done() < all) await new Promise(next => setTimeout(next, 20));
  return [...document.querySelectorAll("output")].map(o => o.textContent).filter(Boolean);
})()
"""


def test_the_page_works_in_a_browser_and_asks_no_other_host(browser: Browser, tiny: Serving) -> None:
    page = browser.open(f"{tiny.url}/")
    assert page.ask("location.pathname") == "/docs"
    assert page.ask("document.title") == "tiny 3"
    assert "Projects noisy values" in page.ask("document.body.textContent")
    done = page.call("Runtime.evaluate", expression=SENT, awaitPromise=True, returnByValue=True)
    answers = done["result"]["value"]
    assert len(answers) > 25
    assert [answer for answer in answers if not answer.startswith("200 ")] == []
    assert any("å <b>" not in answer and '"length":5' in answer for answer in answers)
    assert complaints(page, tiny.url) == []


def test_a_page_that_asked_another_host_would_be_stopped(browser: Browser, tiny: Serving) -> None:
    """The planted fault: an element of another host, and a request to one."""
    page = browser.open(f"{tiny.url}/docs")
    page.call(
        "Runtime.evaluate",
        expression="""new Promise(done => { const s = document.createElement('script');
        s.src = 'http://localhost:1/x.js'; s.onerror = done; document.head.append(s); })""",
        awaitPromise=True,
    )
    done = page.call(
        "Runtime.evaluate",
        expression="fetch('http://localhost:1/').then(() => 'went', error => String(error))",
        awaitPromise=True,
        returnByValue=True,
    )
    assert "went" not in done["result"]["value"]
    assert "Content Security Policy" in str(page.complaints)


def test_what_a_contract_says_stays_text(contract: Contract) -> None:
    text = (support.TINY / "model.toml").read_text()
    hostile = Contract.parse(text.replace("Up to eight numbers.", "<script>window.owned=1</script>"))
    page = docs.render(docs.document(hostile, {"/project"})).decode()
    assert "<script>window" not in page
    assert page.count("&lt;script&gt;window") > 0
    assert docs.render(docs.document(contract, {"/project"})).decode().count("<script") == 1


@contextlib.contextmanager
def another_origin() -> Iterator[str]:
    """An empty page of another origin."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked_from(browser: Browser, origin: str, server: Serving, body: str) -> str:
    """What a page of the origin reads of a JSON request, which a browser sends after a preflight."""
    page = browser.open(origin)
    asks = f"""fetch('{server.url}/measure', {{method: 'POST', body: '{body}',
        headers: {{'content-type': 'application/json'}}}})
        .then(async a => a.status + ' ' + a.headers.get('x-request-id') + ' ' + await a.text(), String)"""
    done = page.call("Runtime.evaluate", expression=asks, awaitPromise=True, returnByValue=True)
    return str(done["result"]["value"])


def test_pages_of_the_origins_that_are_named_may_ask_and_no_others(browser: Browser, tmp_path: Path) -> None:
    with (
        another_origin() as friend,
        another_origin() as stranger,
        support.serving(support.make_tiny(tmp_path / "open"), HELIX_CORS_ORIGINS=friend) as server,
    ):
        answer = asked_from(browser, friend, server, '{"text": "abc"}')
        assert answer.startswith("200 ")
        assert '"length":3' in answer
        assert "null" not in answer.split()[1]
        assert asked_from(browser, friend, server, "x" * 30_000).startswith("413 "), "a refusal is read, too"
        assert "Failed to fetch" in asked_from(browser, stranger, server, '{"text": "abc"}')


def test_no_origin_may_ask_when_none_is_named(tiny: Serving) -> None:
    preflight = {"origin": "http://localhost:1", "access-control-request-method": "POST"}
    assert httpx.options(f"{tiny.url}/measure", headers=preflight).status_code == 405
    asked = httpx.post(f"{tiny.url}/measure", json={"text": "a"}, headers={"origin": "http://localhost:1"})
    assert not [name for name in asked.headers if name.startswith("access-control")]
