"""The node's first process: order, readiness, restarts, and no zombie."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from model_to_metal.cluster.node.component import Component
from model_to_metal.cluster.node.supervisor import Supervisor
from tests.waiting import until

ALL = None
"""The test's own rights: these components are started as whoever runs the test."""


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", text)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path


def rows(supervisor: Supervisor, home: Path) -> dict[str, dict[str, object]]:
    supervisor.tick()
    found: dict[str, dict[str, object]] = json.loads((home / "progress.json").read_text())
    return found


def test_what_is_needed_comes_first(home: Path) -> None:
    order = home / "order"
    write = "import sys; open({!r}, 'a').write({!r})".format
    first = Component("first", program(write(str(order), "1")), once=True, capabilities=ALL)
    second = Component("second", program(write(str(order), "2")), ("first",), once=True, capabilities=ALL)
    supervisor = Supervisor([second, first], home, {})
    until(lambda: all(row["state"] == "done" for row in rows(supervisor, home).values()), "both are done")
    assert order.read_text() == "12"


def test_what_fails_is_started_again_and_what_needs_it_waits(home: Path) -> None:
    flag = home / "flag"
    reads = program(f"import pathlib; pathlib.Path({str(flag)!r}).read_text()")
    fails = Component("fails", reads, once=True, capabilities=ALL)
    waits = Component("waits", program("import time; time.sleep(60)"), ("fails",), capabilities=ALL)
    supervisor = Supervisor([fails, waits], home, {})
    until(lambda: int(str(rows(supervisor, home)["fails"]["starts"])) >= 2, "it was started again")
    assert rows(supervisor, home)["waits"]["state"] == "waiting"
    assert "FileNotFoundError" in (home / "log" / "fails.log").read_text()
    flag.touch()
    until(lambda: rows(supervisor, home)["waits"]["state"] == "ready", "what needs it runs")
    _end(supervisor, home)


def test_a_component_is_ready_once_it_answers(home: Path) -> None:
    path = home / "socket"
    text = "import socket, time; s = socket.socket(socket.AF_UNIX); time.sleep(0.5); "
    text += f"s.bind({str(path)!r}); s.listen(); time.sleep(60)"
    supervisor = Supervisor([Component("server", program(text), ready=f"unix://{path}", capabilities=ALL)], home, {})
    until(lambda: rows(supervisor, home)["server"]["state"] == "starting", "it is started")
    until(lambda: rows(supervisor, home)["server"]["state"] == "ready", "it is ready")
    assert path.exists()
    _end(supervisor, home)


def _end(supervisor: Supervisor, home: Path) -> None:
    for row in rows(supervisor, home).values():
        if row["pid"]:
            os.kill(int(str(row["pid"])), signal.SIGKILL)
            os.waitpid(int(str(row["pid"])), 0)
