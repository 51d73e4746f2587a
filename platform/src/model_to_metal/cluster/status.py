"""How a cluster is: each component of ours, or what can be asked of a cluster that somebody else runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.formats.canonical import Json
from model_to_metal.cluster import cgroups, facts, lifecycle
from model_to_metal.cluster.errors import ClusterError, NotRunning
from model_to_metal.cluster.facts import Facts
from model_to_metal.cluster.layout import Layout
from model_to_metal.cluster.node.supervisor import UP
from model_to_metal.errors import ToolError
from model_to_metal.host.process import run


@dataclass(frozen=True, slots=True)
class Row:
    """One component."""

    name: str
    state: str
    """`ready`, `done`, `starting`, `waiting` or `failing`."""
    starts: int
    ready_after_s: float | None

    @property
    def is_up(self) -> bool:
        """May what needs it rely on it?"""
        return self.state in UP


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster, now."""

    name: str
    running: bool
    components: tuple[Row, ...]
    memory_bytes: int
    """What its processes and pods hold, files' pages left out."""
    facts: Facts

    @property
    def is_ready(self) -> bool:
        """Does it run, with every component ready?"""
        return self.running and bool(self.components) and all(row.is_up for row in self.components)

    def to_json(self) -> dict[str, Json]:
        """For scripts."""
        rows: list[Json] = [
            {"name": row.name, "state": row.state, "starts": row.starts, "ready_after_s": row.ready_after_s}
            for row in self.components
        ]
        value: dict[str, Json] = {"cluster": self.name, "running": self.running, "ready": self.is_ready}
        value |= {"memory_bytes": self.memory_bytes, "components": rows, "kubeconfig": self.facts.external}
        if self.facts.slot is not None:
            at = self.facts.addresses
            value |= {"server": at.server, "registry": at.registry, "git": at.git, "pods": at.pods}
        return value


def of(layout: Layout) -> Status:
    """Ask the cluster. Raises NotRunning when there is none of that name."""
    known = facts.read(layout)
    if known.external:
        return Status(layout.name, True, nodes(Path(known.external)), 0, known)
    rows = tuple(
        Row(name, str(row["state"]), int(row["starts"]), row["ready_after_s"])
        for name, row in lifecycle.progress(layout).items()
    )
    return Status(layout.name, known.runs(), rows, cgroups.memory(layout.identity), known)


def adopt(layout: Layout, kubeconfig: Path) -> Status:
    """Use a cluster that exists: remember its kubeconfig. Raises ClusterError when it does not answer."""
    if layout.facts.exists() and not facts.read(layout).external:
        raise ClusterError(
            f"a cluster {layout.name!r} of our own is here", where=str(layout.root), fix="helix cluster down"
        )
    if not nodes(kubeconfig):
        raise ClusterError("the cluster has no node", where=str(kubeconfig))
    Facts(external=str(kubeconfig.resolve())).write(layout)
    return of(layout)


def nodes(kubeconfig: Path) -> tuple[Row, ...]:
    """The nodes of a cluster that somebody else runs, as its API server tells. Raises ClusterError."""
    command = ["kubectl", f"--kubeconfig={kubeconfig}", "get", "nodes", "--output=json", "--request-timeout=10s"]
    try:
        items = json.loads(run(command, timeout_s=30))["items"]
        return tuple(Row(str(item["metadata"]["name"]), _condition(item), 1, None) for item in items)
    except (ToolError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"the cluster does not answer: {error}", where=str(kubeconfig)) from error


def _condition(item: Mapping[str, Any]) -> str:
    ready = any(row["type"] == "Ready" and row["status"] == "True" for row in item["status"].get("conditions", []))
    return "ready" if ready else "failing"


def log(layout: Layout, component: str) -> Path:
    """The file that a component of ours writes to. Raises NotRunning or ClusterError, which lists the components."""
    known = facts.read(layout)
    if known.external:
        raise ClusterError("the logs of a cluster that exists are asked for with its own kubectl", where=known.external)
    names = [*lifecycle.progress(layout), "node"]
    if component not in names:
        raise ClusterError(f"there is no component {component!r}; there are: {', '.join(sorted(names))}")
    return layout.log(component)


def kubeconfig(layout: Layout) -> Path:
    """The administrator's kubeconfig. Raises NotRunning."""
    known = facts.read(layout)
    path = Path(known.external) if known.external else layout.kubeconfig
    if not path.exists():
        raise NotRunning("the cluster has no kubeconfig yet", where=str(path), fix="helix cluster up")
    return path
