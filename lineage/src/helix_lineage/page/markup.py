"""HTML and SVG that can't be broken by what they show: every text is escaped unless it was made here. Pure.

>>> element("p", {"class": "x"}, "1 < 2")
'<p class="x">1 &lt; 2</p>'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VOID = frozenset({"meta", "br", "hr"})
# What would be invisible, or turn the line around, is shown by its number: a name must look like what it is.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


class Markup(str):
    """Markup that `element` made: it is put into other markup as it is."""

    __slots__ = ()


def element(name: str, attributes: Mapping[str, object] | None = None, *children: str) -> Markup:
    """An element; children that are not `Markup` are text, and escaped. Attributes of None are left out."""
    written = [_NAME.fullmatch(name) and name]
    for key, value in (attributes or {}).items():
        if not _NAME.fullmatch(key) or key.lower().startswith("on"):
            raise ValueError(f"not an attribute: {key!r}")
        if value is not None:
            written.append(f'{key}="{text(str(value))}"')
    if not written[0]:
        raise ValueError(f"not an element: {name!r}")
    start = f"<{' '.join(map(str, written))}>"
    return Markup(start if name in _VOID else f"{start}{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Children one after another."""
    return Markup("".join(child if isinstance(child, Markup) else text(child) for child in children))


def text(value: str) -> Markup:
    """Text as markup."""
    return Markup(escape(_HIDDEN.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", value), quote=True))
