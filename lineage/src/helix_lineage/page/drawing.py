"""The chain as SVG: boxes on a fixed grid, an arrow from what says to what it says it of. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from helix_lineage.page.graph import Edge, Graph, Node
from helix_lineage.page.markup import Markup, element, join
from helix_lineage.page.style import CLASSES

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
_WIDE, _HIGH = 240, 66
_ACROSS, _DOWN = 340, 112
_MARGIN = 10

Place = tuple[int, int]


def drawing(graph: Graph) -> Markup:
    """The picture. Each box is a link to the section that holds its evidence."""
    corners = _corners(graph)
    width = 2 * _MARGIN + 2 * _ACROSS + _WIDE
    height = max(y for _, y in corners.values()) + _HIGH + _MARGIN
    boxes = [_box(node, corners[node.key]) for node in graph.nodes.values()]
    arrows = [_arrow(edge, corners) for edge in graph.edges]
    attributes = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "group",
        "aria-label": "The chain as a graph; every box leads to its evidence below",
        "font-family": "system-ui, sans-serif",
        "font-size": 14,
    }
    return element("svg", attributes, _arrowhead(), *arrows, *boxes)


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


def _box(node: Node, corner: Place) -> Markup:
    x, y = corner
    lines = (
        element("text", {"x": x + 12, "y": y + 25, "class": "title"}, node.title),
        element("text", {"x": x + _WIDE - 12, "y": y + 25, "text-anchor": "end", "class": "title"}, node.state.value),
        element("text", {"x": x + 12, "y": y + 49, "font-family": "ui-monospace, monospace"}, node.subtitle[:24]),
    )
    shape = element("rect", {"x": x, "y": y, "width": _WIDE, "height": _HIGH, "rx": 8})
    attributes = {
        "href": f"#{node.key}",
        "class": f"node {CLASSES[node.state]}",
        "aria-label": f"{node.title} {node.subtitle}: {node.state.value}",
    }
    return element("a", attributes, element("title", None, node.why), shape, *lines)


def _arrow(edge: Edge, corners: Mapping[str, Place]) -> Markup:
    (x1, y1), (x2, y2) = _ends(corners[edge.source], corners[edge.target])
    line = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": "edge", "marker-end": "url(#arrow)"}
    middle = ((x1 + x2) // 2, (y1 + y2) // 2 + (-8 if y1 == y2 else 4))  # there is no room on a level line
    label = {"x": middle[0], "y": middle[1], "text-anchor": "middle", "class": "edge-label"}
    # The sections say the same in words.
    about = {"class": CLASSES[edge.state], "aria-hidden": "true"}
    return element("g", about, element("line", line), element("text", label, edge.label))


def _ends(source: Place, target: Place) -> tuple[Place, Place]:
    """From bottom to top in one column, from side to side in one row, else from the side to the top or bottom."""
    (x1, y1), (x2, y2) = source, target
    right, down = x2 > x1, y2 > y1
    side = (x1 + _WIDE * right, y1 + _HIGH // 2)
    if y1 == y2:
        return side, (x2 + _WIDE * (not right), y2 + _HIGH // 2)
    if x1 == x2:
        return (x1 + _WIDE // 2, y1 + _HIGH * down), (x2 + _WIDE // 2, y2 + _HIGH * (not down))
    near = 30 if right else _WIDE - 30
    return side, (x2 + near, y2 + _HIGH * (not down))


def _arrowhead() -> Markup:
    head = {"id": "arrow", "viewBox": "0 0 10 10", "refX": 9, "refY": 5, "markerWidth": 7, "markerHeight": 7}
    path = element("path", {"d": "M0 0L10 5L0 10z", "fill": "context-stroke"})
    return element("defs", None, join(element("marker", {**head, "orient": "auto-start-reverse"}, path)))
