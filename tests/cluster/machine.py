"""What a cluster could leave behind on a machine: looked at before it starts and after it stops."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

SETTINGS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes", "net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_max",
)  # fmt: skip
PLACES = ("/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/etc/cni", "/opt/cni",
          "/run/containerd", "/run/helix", "/run/helix-programs", "/run/netns")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine, as far as a cluster touches it."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    rules: frozenset[str]
    groups: frozenset[str]
    settings: frozenset[str]
    places: frozenset[str]

    def added(self, before: Machine) -> dict[str, list[str]]:
        """What is here and was not before, by kind."""
        kinds = {field.name: sorted(getattr(self, field.name) - getattr(before, field.name)) for field in fields(self)}
        return {kind: found for kind, found in kinds.items() if found}

    def left_by(self, before: Machine) -> dict[str, list[str]]:
        """As `added`, and what was here before and is gone."""
        gone = {f"{field.name} gone": sorted(getattr(before, field.name) - getattr(self, field.name))
                for field in fields(self) if field.name != "processes"}  # fmt: skip
        return {**self.added(before), **{kind: found for kind, found in gone.items() if found}}


def look(marks: tuple[str, ...]) -> Machine:
    """The machine now. Of processes, those whose command line or environment holds one of `marks`."""
    return Machine(
        processes=frozenset(_processes(marks)),
        mounts=frozenset(Path("/proc/self/mounts").read_text().splitlines()),
        links=frozenset(line.split(":")[1].strip() for line in _said("ip", "-oneline", "link").splitlines()),
        routes=frozenset(_said("ip", "route", "show", "table", "all").splitlines()),
        rules=frozenset(_said("nft", "list", "tables").splitlines()),
        groups=frozenset(str(path) for path in Path("/sys/fs/cgroup").rglob("*helix-*") if path.is_dir()),
        settings=frozenset(f"{name}={_read(Path('/proc/sys') / name)}" for name in SETTINGS),
        places=frozenset(place for place in PLACES if Path(place).exists()),
    )


def _processes(marks: tuple[str, ...]) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        line = _read(folder / "cmdline").replace("\0", " ").strip()
        # A shim's command line names its pod, its environment the node's folder.
        if any(mark in line or mark in _read(folder / "environ") for mark in marks):
            found.append(f"{folder.name} {line[:120]}")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
