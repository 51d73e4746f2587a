"""The node's first process: `python -m model_to_metal.cluster.node CLUSTER PROGRAMS LINK_ADDRESS …`.

Runs as PID 1 of private mount, network and process namespaces (`unshare`). Lays private folders
over the few fixed paths that Kubernetes writes to, brings up the node's end of the link, and
supervises the components. When it ends, the kernel ends everything that it started, and the
namespaces go with their mounts, links and routes: nothing is left to be cleaned by hand.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from model_to_metal.cluster import cgroups
from model_to_metal.cluster.layout import NODE_HOME, NODE_PROGRAMS
from model_to_metal.cluster.node.component import load
from model_to_metal.cluster.node.supervisor import Supervisor
from model_to_metal.host.process import attempt, run

KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""What the kubelet sets for the whole machine. Here it sets private copies: the machine stays as it is."""

_PRIVATE = ("/run", "/var/lib", "/var/log")
_LINK_S = 30.0
PATH = f"{NODE_PROGRAMS}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    """Set the namespaces up, then supervise until killed."""
    home, programs, address, gateway, identity = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cgroups.enter(identity)
    _mount(Path(home), Path(programs))
    _bring_up(address, gateway)
    environment = {"PATH": PATH, "HOME": str(NODE_HOME / "tmp"), "TMPDIR": str(NODE_HOME / "tmp"), "LANG": "C.UTF-8"}
    components = load((NODE_HOME / "components.json").read_text())
    Supervisor(components, NODE_HOME, environment).run()


def _mount(home: Path, programs: Path) -> None:
    """Private folders over /run, /var/lib and /var/log; the cluster's own at fixed paths below /run."""
    # Opened before /run is covered: a checkout may lie below it.
    opened = {NODE_HOME: os.open(home, os.O_PATH), NODE_PROGRAMS: os.open(programs, os.O_PATH)}
    resolver = Path("/etc/resolv.conf").resolve()
    run(["mount", "--make-rshared", "/"])
    for place in _PRIVATE:
        run(["mount", "-t", "tmpfs", "-o", "mode=0755", "helix", place])
    for target, handle in opened.items():
        target.mkdir(parents=True)
        run(["mount", "--bind", f"/proc/{os.getpid()}/fd/{handle}", target])
        os.close(handle)
    for folder in ("/run/netns", "/run/lock", "/var/log/containers", "/var/lib/cni", "/var/lib/kubelet"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    # Where /etc/resolv.conf is a link into /run, its target has just been covered.
    if not resolver.exists():
        resolver.parent.mkdir(parents=True, exist_ok=True)
        resolver.touch()
    run(["mount", "--bind", NODE_HOME / "config" / "resolv.conf", resolver])
    run(["mount", "--bind", NODE_HOME / "config" / "hosts", "/etc/hosts"])
    _shield_kernel_settings()


def _shield_kernel_settings() -> None:
    """Let the kubelet write to copies of the settings that belong to the whole machine."""
    # The kernel lets a user namespace mount /proc only where one is visible uncovered: keep one.
    whole = Path("/run/proc")
    whole.mkdir()
    run(["mount", "-t", "proc", "proc", whole])
    for name in KERNEL_SETTINGS:
        setting = Path("/proc/sys") / name
        if not setting.exists():
            continue
        copy = Path("/run/settings") / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(setting.read_text())
        run(["mount", "--bind", copy, setting])


def _bring_up(address: str, gateway: str) -> None:
    """The node's end of the link, which the host moves here."""
    run(["ip", "link", "set", "lo", "up"])
    until = time.monotonic() + _LINK_S
    while attempt(["ip", "link", "show", "eth0"]).returncode:
        if time.monotonic() > until:
            sys.exit("the host moved no link into the node's namespace")
        time.sleep(0.02)
    run(["ip", "address", "add", f"{address}/30", "dev", "eth0"])
    run(["ip", "link", "set", "eth0", "up"])
    # Service addresses are dialled by the node's own programs too: without any route the kernel refuses.
    run(["ip", "route", "add", "default", "via", gateway])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # Pods on one bridge: their packets pass the rules that route services and hold network policies.
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")
    run(["nft", "--file", NODE_HOME / "config" / "node.nft"])


if __name__ == "__main__":
    main()
