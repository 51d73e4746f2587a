"""The chain of one prediction as a page that stands alone: no script, no request, the same bytes each time.

`evidence` looks, `chain` and `records` say what was seen, `drawing` draws it; `markup` escapes
whatever comes from a record. The page shows what the verifier found; it proves nothing by itself.
"""

from __future__ import annotations

from helix_lineage.canonical import Json, dumps
from helix_lineage.errors import CanonicalError
from helix_lineage.page import style
from helix_lineage.page.chain import chain
from helix_lineage.page.drawing import drawing
from helix_lineage.page.evidence import Evidence, gather
from helix_lineage.page.graph import Graph, Node, Row, State
from helix_lineage.page.markup import Markup, element, join

__all__ = ["Evidence", "Graph", "gather", "page"]

_DEEP = 3  # tables in tables that are drawn; what is deeper is shown as JSON
_MEANINGS = {
    State.HOLDS: "it was checked",
    State.FAILS: "it was checked, and is wrong",
    State.ERASED: "it was deleted on purpose, which the log allows",
    State.UNKNOWN: "there is nothing to check it with",
}


def page(given: Evidence) -> bytes:
    """The page, as UTF-8."""
    graph = chain(given)
    css = style.css()
    head = element(
        "head",
        None,
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": style.policy(css)}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "referrer", "content": "no-referrer"}),
        element("title", None, f"Prediction {graph.id}: {graph.state.value}"),
        element("style", None, Markup(css)),
    )
    body = element(
        "body",
        None,
        element("a", {"class": "skip", "href": "#evidence"}, "Skip to the evidence"),
        _header(graph),
        element("main", None, _picture(graph), _sections(graph)),
        _footer(graph),
    )
    return f"<!DOCTYPE html>\n{element('html', {'lang': 'en'}, head, body)}\n".encode()


def _header(graph: Graph) -> Markup:
    kind = style.CLASSES[graph.state]
    of = f" of {graph.model}" if graph.model is not None else ""
    return element(
        "header",
        None,
        element("h1", None, f"Prediction {graph.id}{of}"),
        element("p", {"class": f"verdict {kind}", "id": "verdict"}, _badge(graph.state), " ", _verdict(graph)),
    )


def _verdict(graph: Graph) -> str:
    counts = ", ".join(f"{len(graph.of(state))} {state.value}" for state in State if graph.of(state))
    said = f"{len(graph.nodes)} links of the chain were looked at: {counts}."
    wrong = "; ".join(f"{node.title}: {node.why}" for node in graph.of(State.FAILS))
    return f"{said} {wrong}".strip()


def _picture(graph: Graph) -> Markup:
    legend = [element("li", None, _badge(state), f" {meaning}") for state, meaning in _MEANINGS.items()]
    caption = "From the prediction down to what it was made of. Every box leads to its evidence."
    return element(
        "section",
        {"aria-labelledby": "chain"},
        element("h2", {"id": "chain"}, "The chain"),
        element("ul", {"class": "legend", "aria-label": "What the states mean"}, *legend),
        element(
            "figure",
            None,
            # What scrolls must be reachable by keyboard.
            element("div", {"tabindex": 0, "role": "region", "aria-label": "Graph of the chain"}, drawing(graph)),
            element("figcaption", None, caption),
        ),
    )


def _sections(graph: Graph) -> Markup:
    parts = [_section(node, graph) for node in graph.nodes.values()]
    title = element("h2", {"id": "evidence", "tabindex": -1}, "The evidence of each link")
    return element("section", {"aria-labelledby": "evidence"}, title, *parts)


def _section(node: Node, graph: Graph) -> Markup:
    title = element("h3", {"id": f"{node.key}-title"}, f"{node.title} {node.subtitle}".strip())
    links = [
        element(
            "li", None, f"{edge.label} ", element("a", {"href": f"#{edge.target}"}, graph.nodes[edge.target].title),
            f": {edge.state.value}",
        )
        for edge in graph.edges
        if edge.source == node.key
    ]  # fmt: skip
    table = element("div", {"class": "scroll"}, _rows(node.rows, node.title)) if node.rows else ""
    attributes = {
        "id": node.key,
        "class": f"link {style.CLASSES[node.state]}",
        "aria-labelledby": f"{node.key}-title",
        "data-state": node.state.value,
    }
    return element(
        "section",
        attributes,
        element("header", None, title, _badge(node.state)),
        element("p", None, node.why),
        table,
        element("ul", {"aria-label": f"Links of {node.title}"}, *links) if links else "",
    )


def _badge(state: State) -> Markup:
    return element("span", {"class": f"state {style.CLASSES[state]}"}, state.value)


def _rows(rows: tuple[Row, ...], title: str) -> Markup:
    body = [
        element("tr", None, element("th", {"scope": "row"}, row.name), element("td", None, _value(row.value, row.name)))
        for row in rows
    ]
    return element("table", {"aria-label": f"Evidence of {title}"}, *body)


def _value(value: Json, name: str, depth: int = 0) -> Markup:
    if isinstance(value, str):
        return element("pre", None, value) if "\n" in value else join(value)
    if not isinstance(value, dict | list) or not value:
        return join(_scalar(value))
    if depth >= _DEEP:
        return element("code", None, _json(value))
    if isinstance(value, dict):
        rows = [
            element("tr", None, element("th", {"scope": "row"}, key), element("td", None, _value(item, key, depth + 1)))
            for key, item in sorted(value.items())
        ]
        return element("table", {"aria-label": name}, *rows)
    if all(isinstance(item, dict) for item in value):
        return _table(value, name, depth)
    return element("ul", None, *(element("li", None, _value(item, name, depth + 1)) for item in value))


def _table(rows: list[dict[str, Json]], name: str, depth: int) -> Markup:
    """Objects in a list: a column a key."""
    columns = sorted({column for row in rows for column in row})
    head = element("tr", None, *(element("th", {"scope": "col"}, column) for column in columns))
    lines = [
        element(
            "tr", None, *(element("td", None, _value(row.get(column, ""), column, depth + 1)) for column in columns)
        )
        for row in rows
    ]
    return element("table", {"aria-label": name}, element("thead", None, head), element("tbody", None, *lines))


def _scalar(value: Json) -> str:
    if value is None or value in ([], {}):
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _json(value: Json) -> str:
    try:
        return dumps(value).decode()
    except CanonicalError:
        return "nested too deep to be shown"


def _footer(graph: Graph) -> Markup:
    said = "This page shows what a verifier found; it proves nothing by itself. Check it again with "
    command = f"helix lineage trace {graph.id} --json"
    return element("footer", None, element("p", {"class": "quiet"}, said, element("code", None, command), "."))
