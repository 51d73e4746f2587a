"""The chain as a picture: boxes on a fixed grid, an arrow from what says to what it says it of. Pure.

Only places and sizes are decided here; `page.html` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helix_lineage.page.graph import Edge, Graph, Node

PLACES: Mapping[str, tuple[int, int]] = {
    "prediction": (1, 0),
    "payload": (2, 0),
    "checkpoint": (1, 1),
    "shard": (1, 2),
    "directory": (2, 2),
    "promotion": (0, 3),
    "release": (1, 4),
    "promotion-key": (0, 2),
    "release-key": (0, 4),
    "commit": (0, 5),
    "image": (1, 5),
    "guard": (2, 5),
    "engine": (1, 6),
    "exported": (1, 7),
    "weights": (1, 8),
    "regression": (2, 8),
    "data": (1, 9),
}
"""Key → column and row. Any other role gets a place of its own below."""
WIDE, HIGH = 240, 66
_ACROSS, _DOWN = 340, 112
_MARGIN = 10

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """A link of the chain, and its left upper corner in pixels."""

    node: Node
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Arrow:
    """What one link says of another, from end to end."""

    edge: Edge
    start: Place
    end: Place

    @property
    def label(self) -> Place:
        """Where its words stand; there is no room on a level line."""
        (x1, y1), (x2, y2) = self.start, self.end
        return (x1 + x2) // 2, (y1 + y2) // 2 + (-8 if y1 == y2 else 4)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The picture."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: int
    height: int


def drawing(graph: Graph) -> Drawing:
    """Where everything of a graph stands."""
    corners = _corners(graph)
    boxes = tuple(Box(node, *corners[node.key]) for node in graph.nodes.values())
    arrows = tuple(Arrow(edge, *_ends(corners[edge.source], corners[edge.target])) for edge in graph.edges)
    height = max(box.y for box in boxes) + HIGH + _MARGIN
    return Drawing(boxes, arrows, 2 * _MARGIN + 2 * _ACROSS + WIDE, height)


def _corners(graph: Graph) -> dict[str, Place]:
    """Key → left upper corner in pixels."""
    found, extra = {}, 0
    for key in graph.nodes:
        if key in PLACES:
            column, row = PLACES[key]
        else:
            column, row, extra = extra % 3, 10 + extra // 3, extra + 1
        found[key] = (_MARGIN + column * _ACROSS, _MARGIN + row * _DOWN)
    return found


def _ends(source: Place, target: Place) -> tuple[Place, Place]:
    """From bottom to top in one column, from side to side in one row, else from the side to the top or bottom."""
    (x1, y1), (x2, y2) = source, target
    right, down = x2 > x1, y2 > y1
    side = (x1 + WIDE * right, y1 + HIGH // 2)
    if y1 == y2:
        return side, (x2 + WIDE * (not right), y2 + HIGH // 2)
    if x1 == x2:
        return (x1 + WIDE // 2, y1 + HIGH * down), (x2 + WIDE // 2, y2 + HIGH * (not down))
    near = 30 if right else WIDE - 30
    return side, (x2 + near, y2 + HIGH * (not down))
