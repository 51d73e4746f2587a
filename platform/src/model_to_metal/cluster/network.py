"""The addresses of a cluster, and the link and routes over which the host reaches it.

Every cluster of the machine, of whichever checkout, has a slot: a number that names its link
(`helix0`) and picks its address ranges. The kernel is the register of slots: a link of that name
can be made once, and it goes with the node's network namespace. Whose link it is, its hardware
address says, so that nobody removes another's.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

from model_to_metal.cluster.errors import ClusterError
from model_to_metal.host.process import attempt, run

SLOTS = 250
REGISTRY_PORT, GIT_PORT, API_PORT = 5000, 3080, 6443


@dataclass(frozen=True, slots=True)
class Addresses:
    """What follows from a slot."""

    slot: int

    @property
    def link(self) -> str:
        """The host's end of the link."""
        return f"helix{self.slot}"

    @property
    def peer(self) -> str:
        """The node's end, until it has moved into the node's namespace."""
        return f"{self.link}p"

    @property
    def host(self) -> str:
        """The host's address on the link."""
        return f"10.209.{self.slot}.1"

    @property
    def node(self) -> str:
        """The node's address: API server, registry and Git server listen here."""
        return f"10.209.{self.slot}.2"

    @property
    def pods(self) -> str:
        """The pods' range."""
        return f"10.210.{self.slot}.0/24"

    @property
    def services(self) -> str:
        """The services' range."""
        return f"10.211.{self.slot}.0/24"

    @property
    def api_service(self) -> str:
        """The API server's service."""
        return f"10.211.{self.slot}.1"

    @property
    def dns_service(self) -> str:
        """CoreDNS' service."""
        return f"10.211.{self.slot}.10"

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.node}:{API_PORT}"

    @property
    def registry(self) -> str:
        """`HOST:PORT` of the registry."""
        return f"{self.node}:{REGISTRY_PORT}"

    @property
    def git(self) -> str:
        """URL of the folder of repositories."""
        return f"http://{self.node}:{GIT_PORT}"

    def ranges(self) -> list[ipaddress.IPv4Network]:
        """Every range that the cluster uses."""
        return [ipaddress.IPv4Network(text) for text in (f"10.209.{self.slot}.0/24", self.pods, self.services)]


def claim(identity: str) -> Addresses:
    """Take the first free slot, by making its link. Raises ClusterError when none is free."""
    taken = _routed()
    for slot in range(SLOTS):
        addresses = Addresses(slot)
        if any(mine.overlaps(theirs) for mine in addresses.ranges() for theirs in taken):
            continue
        command = ["ip", "link", "add", addresses.link, "address", hardware_address(identity)]
        made = attempt([*command, "type", "veth", "peer", "name", addresses.peer])
        if made.returncode == 0:
            return addresses
        if b"File exists" not in made.stderr:
            raise ClusterError(
                f"the kernel makes no virtual link: {made.stderr.decode(errors='replace').strip()}",
                where=addresses.link,
            )
    raise ClusterError(
        f"all {SLOTS} address ranges below 10.209.0.0, 10.210.0.0 and 10.211.0.0 are taken", where="ip route"
    )


def connect(addresses: Addresses, node_pid: int) -> None:
    """Move the link's other end into the node's namespace, and route to it. Raises ToolError."""
    run(["ip", "link", "set", addresses.peer, "netns", str(node_pid), "name", "eth0"])
    run(["ip", "address", "add", f"{addresses.host}/30", "dev", addresses.link])
    run(["ip", "link", "set", addresses.link, "up"])
    for destination in (addresses.pods, addresses.services):
        run(["ip", "route", "add", destination, "via", addresses.node])


def release(identity: str) -> None:
    """Remove the cluster's link, if it is still there; its routes go with it."""
    for link in json.loads(run(["ip", "-json", "link", "show"]) or b"[]"):
        if link.get("address") == hardware_address(identity) and str(link["ifname"]).startswith("helix"):
            attempt(["ip", "link", "delete", str(link["ifname"])])


def hardware_address(identity: str) -> str:
    """The link's hardware address: locally administered, and the cluster's own.

    >>> hardware_address("0123abcd")
    '02:68:01:23:ab:cd'
    """
    return ":".join(("02", "68", *(identity[at : at + 2] for at in range(0, 8, 2))))


def _routed() -> list[ipaddress.IPv4Network]:
    """Every range that the machine already has a route to."""
    routes = json.loads(run(["ip", "-4", "-json", "route", "show", "table", "all"]) or b"[]")
    found = [str(route.get("dst", "default")) for route in routes]
    return [ipaddress.IPv4Network(text, strict=False) for text in found if text[0].isdigit()]
