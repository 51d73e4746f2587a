"""The control groups of a cluster: made before it starts, removed after it stops.

Takes the cluster's identity; every group of it is called `helix-<identity>`, in each hierarchy
that the machine has (version 1) or in the one (version 2). The node's own processes are in its
child `node`, pods in those that the kubelet makes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from model_to_metal.cluster.errors import ClusterError

MOUNT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuset", "memory", "pids")
"""Controllers that the kubelet cannot do without."""
_GONE_S = 20.0


def name(identity: str) -> str:
    """The group that everything of a cluster is in."""
    return f"helix-{identity}"


def is_unified() -> bool:
    """Has the machine version 2 of control groups, and nothing else?"""
    return (MOUNT / "cgroup.controllers").exists()


def lacking() -> list[str]:
    """Controllers that a node needs and that are not there, or cannot be used."""
    if is_unified():
        offered = (MOUNT / "cgroup.controllers").read_text().split()
        return [controller for controller in NEEDED if controller not in offered]
    return [controller for controller in NEEDED if not os.access(MOUNT / controller, os.W_OK)]


def make(identity: str) -> None:
    """Make the cluster's group in every hierarchy. Raises ClusterError."""
    try:
        for hierarchy in _hierarchies():
            group = hierarchy / name(identity)
            if is_unified():
                _delegate(hierarchy)
            (group / "node").mkdir(parents=True, exist_ok=True)
            _inherit_cpuset(hierarchy, group)
            if is_unified():
                _delegate(group)
    except OSError as error:
        raise ClusterError(f"no control group can be made: {error.strerror}", where=str(error.filename)) from error


def enter(identity: str) -> None:
    """Move this process into the node's group of every hierarchy."""
    for hierarchy in _hierarchies():
        # 0 is whoever writes.
        (hierarchy / name(identity) / "node" / "cgroup.procs").write_text("0")


def processes(identity: str) -> set[int]:
    """Every process of the cluster, the pods' included."""
    found: set[int] = set()
    for group in _groups(identity):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split() if pid != "0"}
    return found


def memory(identity: str) -> int:
    """Bytes of memory that the cluster's processes hold for themselves; pages of files are left out."""
    top = (MOUNT if is_unified() else MOUNT / "memory") / name(identity)
    field = "anon" if is_unified() else "total_rss"
    try:
        rows = dict(line.split() for line in (top / "memory.stat").read_text().splitlines())
    except OSError:
        return 0
    return int(rows.get(field, 0))


def kill(identity: str) -> None:
    """End every process of the cluster and wait until they are gone. Raises ClusterError."""
    until = time.monotonic() + _GONE_S
    while left := processes(identity):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise ClusterError(f"{len(left)} processes of the cluster do not end", where=f"process {min(left)}")
        time.sleep(0.05)


def remove(identity: str) -> None:
    """Remove the cluster's groups, deepest first. Raises ClusterError when the kernel keeps one."""
    until = time.monotonic() + _GONE_S
    while groups := list(_groups(identity)):
        for group in sorted(groups, key=lambda path: len(path.parts), reverse=True):
            # Busy until the last process of it is really gone; the next round gets it.
            with contextlib.suppress(OSError):
                group.rmdir()
        if time.monotonic() > until:
            raise ClusterError("a control group of the cluster stays busy", where=str(groups[0]))
        time.sleep(0.02)


def _hierarchies() -> list[Path]:
    if is_unified():
        return [MOUNT]
    # runc makes its groups in the version 2 tree beside version 1 as well, but nothing else needs to.
    return [path for path in sorted(MOUNT.iterdir()) if path.is_dir() and not path.is_symlink()]


def _groups(identity: str) -> Iterator[Path]:
    for hierarchy in _hierarchies():
        top = hierarchy / name(identity)
        if top.is_dir():
            yield from (Path(folder) for folder, _, _ in os.walk(top))


def _delegate(group: Path) -> None:
    """Let the children of a version 2 group use the controllers."""
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in NEEDED))


def _inherit_cpuset(hierarchy: Path, group: Path) -> None:
    """Version 1: a fresh cpuset group has no processors, and nothing may enter it."""
    if not (hierarchy / "cpuset.cpus").exists():
        return
    for child in (group, group / "node"):
        for setting in ("cpuset.cpus", "cpuset.mems"):
            (child / setting).write_text((child.parent / setting).read_text().strip())
