"""The chain as nodes and edges: what each link is, what holds it, and whether it does. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from helix_lineage.formats.canonical import Json


class NodeState(enum.Enum):
    """What can be said of a link. The value is what people read.

    `UNKNOWN`: it should be there, and there is nothing to check it with. `UNCHECKED`: nobody asked for this check.
    `ABSENT`: there is none, and there need not be.
    """

    HOLDS = "holds"
    FAILS = "does not hold"
    ERASED = "erased"
    UNKNOWN = "unknown"
    UNCHECKED = "not checked"
    ABSENT = "none"

    @property
    def css(self) -> str:
        """The class of what is drawn in this state."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ChainRow:
    """A piece of evidence."""

    name: str
    value: Json
    """A text, a list of texts, or a list of objects of one shape (a table)."""


@dataclass(frozen=True, slots=True)
class Node:
    """A link of the chain."""

    key: str
    """Its anchor on the page."""
    title: str
    subtitle: str
    """What tells it from others of its kind, in a few characters."""
    state: NodeState
    why: str
    """One sentence: what was checked, or what is wrong."""
    rows: tuple[ChainRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """What one link says of another."""

    source: str
    target: str
    label: str
    state: NodeState


@dataclass(frozen=True, slots=True)
class Graph:
    """The chain of one prediction."""

    id: str
    model: str | None
    nodes: Mapping[str, Node]
    """By key, in reading order."""
    edges: tuple[Edge, ...]

    @property
    def state(self) -> NodeState:
        """Of the whole: what is worst. What was not asked for lowers it not; the page lists it apart."""
        states = {node.state for node in self.nodes.values()}
        worst = (NodeState.FAILS, NodeState.UNKNOWN, NodeState.ERASED)
        return next((state for state in worst if state in states), NodeState.HOLDS)

    def of(self, state: NodeState) -> list[Node]:
        """The nodes in that state."""
        return [node for node in self.nodes.values() if node.state is state]
