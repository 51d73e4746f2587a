"""The chain of one prediction as a page that stands alone: no script, no request, the same bytes each time.

`evidence` looks, `chain` and `records` say what was seen, `overview` puts first what matters most, `drawing` places
the picture; `page.html` shows it. Jinja2 escapes whatever comes from a record. The page shows what the verifier
found; it proves nothing by itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import Json, dumps
from helix_lineage.page.chain import chain
from helix_lineage.page.drawing import HIGH, WIDE, drawing
from helix_lineage.page.evidence import Evidence, gather
from helix_lineage.page.graph import ChainRow, Graph, Node, NodeState
from helix_lineage.page.overview import overview

__all__ = ["ChainRow", "Evidence", "Graph", "Node", "NodeState", "gather", "page"]

HERE = Path(__file__).parent
# What would be invisible, or turn the line around, is shown by its number: a name must look like what it is.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{32,}")


def page(given: Evidence) -> bytes:
    """The page, as UTF-8."""
    graph = chain(given)
    css = (HERE / "style.css").read_text(encoding="utf-8")
    text = (
        environment()
        .get_template("page.html")
        .render(
            graph=graph,
            first=overview(given, graph),
            picture=drawing(graph),
            box={"wide": WIDE, "high": HIGH},
            states=list(NodeState),
            css=Markup(css),  # noqa: S704  our own file
            policy=policy(css),
        )
    )
    return text.encode()


def environment() -> Environment:
    """Templates in which every value is escaped, and nothing is left out in silence."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"json": _json, "short": _short}
    made.tests["digest"] = lambda value: isinstance(value, str) and _DIGEST.fullmatch(value) is not None
    return made


def policy(css: str) -> str:
    """The content security policy of a page with this one style sheet, and nothing else: no script, no request."""
    seen = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{seen}'; base-uri 'none'; form-action 'none'"


def visible(value: object) -> object:
    """Text with what cannot be seen shown by its number; markup as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _HIDDEN.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", value)
    return value


def _short(digest: str) -> str:
    """The beginning of a digest or commit: enough to tell two apart by eye."""
    return digest.removeprefix("sha256:")[:12]


def _json(value: Json) -> str:
    try:
        return dumps(value).decode()
    except CanonicalError:
        return "nested too deep to be shown"
