"""Starts and stops a cluster.

`up` claims addresses, fills the cluster's folder, starts the node in private namespaces and waits
until every component is ready. `down` ends the node, and removes what the kernel does not remove
by itself: control groups and, after a start that was cut short, the link. Both may be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_to_metal.cluster import cgroups, facts, network
from model_to_metal.cluster.configure import configure, forget
from model_to_metal.cluster.errors import ClusterError, NotReady, NotRunning
from model_to_metal.cluster.facts import Facts
from model_to_metal.cluster.layout import Layout
from model_to_metal.cluster.node.supervisor import UP
from model_to_metal.errors import ToolError

READY_S = 180.0
"""How long a start may take on a busy machine before it is given up."""

_SPAWN_S = 10.0
_POLL_S = 0.05
_BUSY_S = 30.0
_RESTARTS = 12  # of one component; then waiting longer does not help

Report = Callable[[str, float], None]
"""Given a component's name and the seconds after which it was ready."""


def up(layout: Layout, programs: Path, report: Report, *, ready_s: float = READY_S) -> Facts:
    """Start the cluster, unless it runs. Raises ClusterError, and leaves nothing behind when it does."""
    with _alone(layout):
        with contextlib.suppress(NotRunning):
            known = facts.read(layout)
            if known.runs():
                _await_ready(layout, known, report, ready_s)
                return known
            # What is left of a node that died, or of a start that was killed.
            _end(layout)
        try:
            return _start(layout, programs, report, ready_s)
        except BaseException:
            _keep_logs(layout)
            _end(layout)
            raise


def down(layout: Layout) -> bool:
    """Stop the cluster and remove all that it left; False when there was nothing. Raises ClusterError."""
    if not layout.root.exists() and not cgroups.processes(layout.identity):
        return False
    with _alone(layout):
        _end(layout)
    return True


def progress(layout: Layout) -> Mapping[str, Mapping[str, Any]]:
    """How each component is, by its name; empty before the node wrote it."""
    try:
        rows: Mapping[str, Mapping[str, Any]] = json.loads(layout.progress.read_bytes())
    except (OSError, ValueError):
        return {}
    return rows


def _start(layout: Layout, programs: Path, report: Report, ready_s: float) -> Facts:
    began = time.monotonic()
    Facts().write(layout)
    addresses = network.claim(layout.identity)
    known = Facts(slot=addresses.slot)
    known.write(layout)
    configure(layout, programs, addresses)
    cgroups.make(layout.identity)
    report("configuration", time.monotonic() - began)
    pid = _spawn(layout, programs, addresses)
    known = replace(known, node_pid=pid, node_started=facts.started(pid))
    known.write(layout)
    network.connect(addresses, pid)
    _await_ready(layout, known, report, ready_s)
    return known


def _spawn(layout: Layout, programs: Path, addresses: network.Addresses) -> int:
    """Start the node in namespaces of its own; gives its first process as the host numbers it."""
    node = [sys.executable, "-m", "model_to_metal.cluster.node", str(layout.root), str(programs)]
    node += [addresses.node, addresses.host, layout.identity]
    # The namespaces' holder dies with the node and the node with it, whichever is killed.
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *node]
    with layout.log("node").open("ab") as log:
        holder = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd="/", start_new_session=True
        )
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    until = time.monotonic() + _SPAWN_S
    while holder.poll() is None and time.monotonic() < until:
        if found := children.read_text().split():
            # Popen would else complain about a process that is meant to outlive us.
            holder.returncode = 0
            return int(found[0])
        time.sleep(0.005)
    complaint = layout.log("node").read_text(errors="replace").strip()
    raise ClusterError(f"the node's namespaces could not be made: {complaint}", where="unshare")


def _await_ready(layout: Layout, known: Facts, report: Report, ready_s: float) -> None:
    """Report each component as it becomes ready. Raises NotReady."""
    reported: set[str] = set()
    until = time.monotonic() + ready_s
    while True:
        rows = progress(layout)
        for name, row in sorted(rows.items(), key=lambda item: item[1]["ready_after_s"] or 0):
            if row["state"] in UP and name not in reported:
                report(name, float(row["ready_after_s"]))
                reported.add(name)
        if rows and all(row["state"] in UP for row in rows.values()):
            return
        late = sorted(name for name, row in rows.items() if row["state"] not in UP and row["starts"])
        if not known.runs():
            raise NotReady(f"the node ended: {_last_line(layout, 'node')}", where=str(layout.log("node")))
        hopeless = [name for name in late if rows[name]["starts"] > _RESTARTS]
        if hopeless or time.monotonic() > until:
            name = (hopeless or late or ["node"])[0]
            raise NotReady(f"{name} did not become ready: {_last_line(layout, name)}", where=str(_kept(layout, name)))
        time.sleep(_POLL_S)


def _end(layout: Layout) -> None:
    """End everything of the cluster, whatever state it is in."""
    with contextlib.suppress(NotRunning):
        known = facts.read(layout)
        if known.runs():
            # The first process of a process namespace takes all others with it.
            os.kill(known.node_pid, 9)
    cgroups.kill(layout.identity)
    cgroups.remove(layout.identity)
    try:
        network.release(layout.identity)
    except ToolError as error:
        raise ClusterError(f"the cluster's link cannot be looked for: {error.what}") from error
    forget(layout)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Hold the cluster's lock. It goes with whoever holds it, so a start that is killed locks nobody out."""
    layout.lock.parent.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("a") as handle:
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ClusterError(
                        f"another command starts or stops the cluster {layout.name!r}", where=str(layout.lock)
                    ) from None
                time.sleep(_POLL_S)
        yield


def _last_line(layout: Layout, name: str) -> str:
    try:
        lines = layout.log(name).read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it wrote nothing"
    return lines[-1][:300] if lines else "it wrote nothing"


def _kept(layout: Layout, name: str) -> Path:
    """Where a component's log lies after a start that failed."""
    return layout.failed / f"{name}.log"


def _keep_logs(layout: Layout) -> None:
    """A start that failed leaves its logs, and nothing else."""
    kept = _kept(layout, "node").parent
    kept.mkdir(parents=True, exist_ok=True)
    for path in (layout.root / "log").glob("*.log"):
        with contextlib.suppress(OSError):
            (kept / path.name).write_bytes(path.read_bytes())
