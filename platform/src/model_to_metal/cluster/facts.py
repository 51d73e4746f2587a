"""What is known of a cluster, in `cluster.json`: enough to reach it, and to end it.

Written before anything is started, so that whatever is left of a start that was killed can be
found. A process number alone says nothing after a while: it is kept with the time at which the
process started.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from model_to_metal.cluster.errors import NotRunning
from model_to_metal.cluster.layout import Layout
from model_to_metal.cluster.network import Addresses


@dataclass(frozen=True, slots=True)
class Facts:
    """A cluster that was started, or one that somebody else runs."""

    slot: int | None = None
    """None: a cluster that exists without us (`external`)."""
    node_pid: int = 0
    """The node's first process, as the host numbers it; 0 while it is not started."""
    node_started: int = 0
    """When that process started, in clock ticks since the machine did."""
    external: str | None = None
    """The kubeconfig of a cluster that exists."""

    @property
    def addresses(self) -> Addresses:
        """The cluster's addresses. A bare ValueError for a cluster that is not ours."""
        if self.slot is None:
            raise ValueError("a cluster that exists has no addresses of ours")
        return Addresses(self.slot)

    def write(self, layout: Layout) -> None:
        """Replace `cluster.json`."""
        layout.root.mkdir(parents=True, exist_ok=True)
        half = layout.facts.with_suffix(".half")
        half.write_text(json.dumps(asdict(self)) + "\n")
        half.replace(layout.facts)

    def runs(self) -> bool:
        """Does the node's first process still run?"""
        return self.node_pid > 0 and started(self.node_pid) == self.node_started


def read(layout: Layout) -> Facts:
    """Raises NotRunning when there is no such cluster."""
    try:
        return Facts(**json.loads(layout.facts.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise NotRunning(
            f"there is no cluster {layout.name!r} here", where=str(layout.root), fix="helix cluster up"
        ) from error


def started(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; 0 when there is none, or only its remains."""
    try:
        # The name, in parentheses, may hold anything.
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if after[0] == "Z" else int(after[19])
