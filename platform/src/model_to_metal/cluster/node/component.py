"""What the node's first process starts: a component, and when it counts as ready.

A frozen record that travels as JSON from the command that starts a cluster to the node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ROOT = 0


@dataclass(frozen=True, slots=True)
class Component:
    """A program of the node."""

    name: str
    """Its log and its line of progress are called so."""
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Components that must be ready before it starts."""
    ready: str | None = None
    """It is ready once this answers: an http(s) URL, `tcp://HOST:PORT` or `unix://PATH`; None: once it runs."""
    once: bool = False
    """It runs to its end, again until it succeeds; then it is ready."""
    account: int = ROOT
    """The user and group that it runs as."""
    capabilities: tuple[str, ...] | None = ()
    """Capabilities that it keeps, for instance `net_admin`; None: all that root has."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides PATH, HOME and TMPDIR."""

    def command(self) -> list[str]:
        """The argument list that starts it with no more rights than it declares."""
        if self.capabilities is None:
            return list(self.argv)
        kept = "".join(f",+{name}" for name in self.capabilities)
        limits = ["setpriv", f"--reuid={self.account}", f"--regid={self.account}", "--clear-groups"]
        limits += ["--no-new-privs", f"--bounding-set=-all{kept}", f"--inh-caps=-all{kept}"]
        # A user other than root keeps a capability over its start only if it is ambient.
        limits += [f"--ambient-caps=-all{kept}"] if self.account != ROOT else []
        return [*limits, "--", *self.argv]


def dump(components: Iterable[Component]) -> str:
    """Components as JSON."""
    return json.dumps([asdict(component) for component in components], indent=1)


def load(text: str) -> list[Component]:
    """Read what `dump` wrote.

    >>> load(dump([Component("etcd", ("etcd", "--version"))]))[0].argv
    ('etcd', '--version')
    """
    return [_component(row) for row in json.loads(text)]


def ordered(components: Iterable[Component]) -> list[Component]:
    """The components, each after those that it needs. A bare ValueError names one that has no such order."""
    waiting, done = list(components), []
    ready: set[str] = set()
    while waiting:
        free = [component for component in waiting if ready.issuperset(component.needs)]
        if not free:
            names = ", ".join(component.name for component in waiting)
            raise ValueError(f"components that need each other, or one that is not there: {names}")
        done += free
        ready |= {component.name for component in free}
        waiting = [component for component in waiting if component not in free]
    return done


def _component(row: dict[str, Any]) -> Component:
    capabilities = None if row["capabilities"] is None else tuple(row["capabilities"])
    fixed = {"argv": tuple(row["argv"]), "needs": tuple(row["needs"]), "capabilities": capabilities}
    return Component(**{**row, **fixed})
