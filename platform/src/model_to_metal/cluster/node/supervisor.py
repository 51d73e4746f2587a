"""Starts components in the order that they need each other, and again when they end.

Takes components and a folder for logs; gives `progress.json`, in which others see how far each
is. Runs as the first process of the node, so it also collects the processes that lost their
parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_to_metal.cluster.node.component import Component
from model_to_metal.cluster.node.probe import answers

WAITING, STARTING, READY, DONE, FAILING = "waiting", "starting", "ready", "done", "failing"
UP = (READY, DONE)
"""The states in which what needs a component may start."""

_TICK_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 10.0
_STEADY_S = 20.0  # who ran this long starts again with the first pause
_LOG_LIMIT = 64 << 20


@dataclass(slots=True)
class _Running:
    """One component and what became of it so far."""

    component: Component
    state: str = WAITING
    pid: int = 0
    starts: int = 0
    pause_s: float = _FIRST_PAUSE_S
    started: float = 0.0
    not_before: float = 0.0
    ready_after_s: float | None = None
    exit_status: int | None = None


class Supervisor:
    """The loop. `tick` does everything that is due; `run` calls it for ever."""

    def __init__(self, components: Sequence[Component], home: Path, environment: dict[str, str]) -> None:
        self._all = {component.name: _Running(component) for component in components}
        self._home = home
        self._environment = environment
        self._began = time.monotonic()
        self._written = ""

    def run(self) -> None:
        """Supervise until this process is killed."""
        while True:
            self.tick()
            time.sleep(_TICK_S)

    def tick(self) -> None:
        """Collect what ended, start what may start, ask who is not ready yet, and write it down."""
        self._collect()
        for one in self._all.values():
            if one.pid == 0 and one.state != DONE and time.monotonic() >= one.not_before and self._may(one):
                self._start(one)
            elif one.state == STARTING and one.pid and not one.component.once:
                self._ask(one)
        self._write()

    def _may(self, one: _Running) -> bool:
        return all(self._all[name].state in UP for name in one.component.needs)

    def _start(self, one: _Running) -> None:
        component = one.component
        path = self._home / "log" / f"{component.name}.log"
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            process = subprocess.Popen(
                component.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, **component.environment},
                cwd="/",
                start_new_session=True,
            )
        # `_collect` waits for every child alike; Popen must not try to.
        process.returncode = 0
        one.pid, one.started, one.state = process.pid, time.monotonic(), STARTING
        one.starts += 1

    def _ask(self, one: _Running) -> None:
        target = one.component.ready
        if target is None or answers(target, str(self._home / "pki" / "ca.crt")):
            self._ready(one, READY)

    def _ready(self, one: _Running, state: str) -> None:
        one.state = state
        if one.ready_after_s is None:
            one.ready_after_s = round(time.monotonic() - self._began, 2)

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for one in self._all.values():
                if one.pid == pid:
                    self._ended(one, os.waitstatus_to_exitcode(status))

    def _ended(self, one: _Running, status: int) -> None:
        one.pid, one.exit_status = 0, status
        if one.component.once and status == 0:
            self._ready(one, DONE)
            return
        one.state = FAILING
        if time.monotonic() - one.started > _STEADY_S:
            one.pause_s = _FIRST_PAUSE_S
        one.not_before = time.monotonic() + one.pause_s
        one.pause_s = min(2 * one.pause_s, _LONGEST_PAUSE_S)

    def _write(self) -> None:
        rows = {
            name: {
                "state": one.state,
                "pid": one.pid,
                "starts": one.starts,
                "ready_after_s": one.ready_after_s,
                "exit_status": one.exit_status,
            }
            for name, one in self._all.items()
        }
        text = json.dumps(rows, indent=1)
        if text != self._written:
            half = self._home / "progress.json.half"
            half.write_text(text)
            half.replace(self._home / "progress.json")
            self._written = text
