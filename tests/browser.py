"""A real headless Chromium, spoken to over its debugging pipe: nothing to install but the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until

_WAIT_S = 60.0
_COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def required() -> str:
    """The browser's path; without one the test is skipped."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no chromium here; run: make setup-tests")
    return found


@dataclass
class Page:
    """What a page did, and what can be asked of it."""

    browser: Browser
    session: str
    complaints: list[dict[str, Any]] = field(default_factory=list)
    """Errors, exceptions, whatever was printed to the console, and violations of the security policy."""
    requests: list[str] = field(default_factory=list)
    """URLs that were asked for."""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


class Browser:
    """One process; pages are opened in it."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, answers: int) -> None:
        self._process, self._to, self._answers = process, to, answers
        self._last, self._rest = 0, b""
        self._pages: dict[str, Page] = {}
        self._events: list[dict[str, Any]] = []

    def open(self, url: str, *, dark: bool = False) -> Page:
        """Go there, and wait until it has loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log", "DOM", "Accessibility"):
            page.call(f"{domain}.enable")
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.call("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        page.call("Page.navigate", url=url)
        until = time.monotonic() + _WAIT_S
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            assert time.monotonic() < until, f"{url} did not load"
            self._read()
        # A request or an error that comes late has come once the page has answered after a turn of its own.
        page.call("Runtime.evaluate", expression="new Promise(done => setTimeout(done, 100))", awaitPromise=True)
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last += 1
        mine = self._last
        said = {"id": mine, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(said).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == mine:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._answers, 1 << 16)
            assert more, f"the browser ended with status {self._process.wait()}"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        value: dict[str, Any] = json.loads(message)
        if "method" in value:
            self._note(value)
        return value

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        page = self._pages.get(event.get("sessionId", ""))
        if page is None:
            return
        if event["method"] in _COMPLAINTS:
            page.complaints.append(event["params"])
        if event["method"] == "Network.requestWillBeSent":
            page.requests.append(event["params"]["request"]["url"])


@contextmanager
def running() -> Iterator[Browser]:
    """A browser with a profile of its own; as root it needs its sandbox off, for it has no user to change to."""
    program = required()
    with tempfile.TemporaryDirectory(prefix="helix-browser-", ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
        options += ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        options += ["--disable-dev-shm-usage", "--window-size=1280,1600", "--no-proxy-server"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        (from_us, to), (answers, from_it) = os.pipe(), os.pipe()
        # It reads what is its descriptor 3 and writes to 4; ours stand above, so that neither is in the way.
        from_us, from_it = (_above(descriptor) for descriptor in (from_us, from_it))
        command = ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{from_it}', "bash", program, *options]
        process = subprocess.Popen(
            command, pass_fds=(from_us, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for descriptor in (from_us, from_it):
            os.close(descriptor)
        try:
            yield Browser(process, to, answers)
        finally:
            os.close(to)  # it ends with its pipe
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(answers)
            until(lambda: _removed(profile), "the browser's profile is gone", 30)


def _removed(profile: str) -> bool:
    """Remove the profile; the browser's other processes may still write there for a moment."""
    shutil.rmtree(profile, ignore_errors=True)
    return not os.path.lexists(profile)


def _above(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return moved


def url_of(path: Path) -> str:
    return path.resolve().as_uri()
