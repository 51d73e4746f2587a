"""How the page looks, on a screen, in the dark and on paper. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from helix_lineage.page.graph import State

CLASSES: Mapping[State, str] = {
    State.HOLDS: "holds",
    State.FAILS: "fails",
    State.ERASED: "erased",
    State.UNKNOWN: "unknown",
}
"""State → class in the markup."""

LIGHT: Mapping[str, tuple[str, str]] = {
    "page": ("#1a1c20", "#ffffff"),
    "quiet": ("#4d5360", "#ffffff"),
    "holds": ("#0b5d29", "#e8f5ed"),
    "fails": ("#97001b", "#fdebed"),
    "erased": ("#51337f", "#f2edfa"),
    "unknown": ("#5a4700", "#fbf4d9"),
}
"""Name → ink and paper. A test computes the contrast of each."""
DARK: Mapping[str, tuple[str, str]] = {
    "page": ("#e8eaed", "#15171b"),
    "quiet": ("#b4bac5", "#15171b"),
    "holds": ("#86dfa4", "#11301d"),
    "fails": ("#ffa3ad", "#420f18"),
    "erased": ("#cfb8f4", "#2b2042"),
    "unknown": ("#ead58a", "#322a0c"),
}

_RULES = """\
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:0 1.25rem 3rem;font:1rem/1.5 system-ui,sans-serif}
body{color:var(--page-ink);background:var(--page-paper)}
h1{font-size:1.35rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin-top:2.5rem}
h3{font-size:1.05rem;margin:0}
a{color:inherit}
a:focus-visible,[tabindex]:focus-visible{outline:3px solid currentColor;outline-offset:3px}
.skip{position:absolute;left:-999rem}
.skip:focus{position:static}
code,td,pre{font-family:ui-monospace,monospace;font-size:.875rem}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.verdict{padding:.75rem 1rem;border:2px solid;border-radius:.5rem}
.state{display:inline-block;padding:0 .5rem;border:1px solid;border-radius:1rem}
.state{font-size:.875rem;font-weight:600;white-space:nowrap}
figure{margin:1rem 0}
figure>div{overflow-x:auto}
svg{display:block;max-width:100%;height:auto;min-width:44rem}
figcaption,.quiet{color:var(--quiet-ink)}
section.link{margin:1.25rem 0;padding:1rem;border:1px solid;border-left-width:.5rem;border-radius:.5rem}
section.link>header{display:flex;gap:.75rem;flex-wrap:wrap;align-items:baseline}
section.link:target{outline:3px solid currentColor;outline-offset:3px}
.scroll{overflow-x:auto;color:var(--page-ink);background:var(--page-paper)}
table{border-collapse:collapse;width:100%}
th,td{padding:.25rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--quiet-ink)}
td{overflow-wrap:anywhere}
th{font-weight:600;min-width:8rem}
td ul{margin:0;padding-left:1rem}
ul.legend{display:flex;gap:1rem;flex-wrap:wrap;list-style:none;padding:0}
.node rect{stroke-width:2}
.node text{fill:currentColor}
.node .title{font-weight:600}
.node:focus-visible{outline:none}
.node:focus-visible rect{stroke-width:5}
.edge{stroke:currentColor;fill:none;stroke-width:1.75}
.edge-label{fill:currentColor;stroke:var(--page-paper);stroke-width:5;paint-order:stroke;font-size:12px}
g.fails .edge{stroke-width:3;stroke-dasharray:9 4}
g.unknown .edge{stroke-dasharray:2 4}
g.erased .edge{stroke-dasharray:6 3 2 3}
@media print{
body{max-width:none}
.skip{display:none}
section.link,tr{break-inside:avoid}
svg{min-width:0;max-height:22cm}
}
"""


def css() -> str:
    """The style sheet."""
    states = "".join(
        f".{name}{{color:var(--{name}-ink);background:var(--{name}-paper)}}"
        f".node.{name} rect{{fill:var(--{name}-paper);stroke:currentColor}}g.{name}{{background:none}}\n"
        for name in CLASSES.values()
    )
    # Paper is white, whatever the screen was.
    dark = f"@media screen and (prefers-color-scheme:dark){{{_variables(DARK)}}}\n"
    return f":root{{color-scheme:light dark}}{_variables(LIGHT)}\n{dark}{_RULES}{states}"


def policy(style: str) -> str:
    """The content security policy of a page with this one style sheet, and nothing else: no script, no request."""
    seen = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{seen}'; base-uri 'none'; form-action 'none'"


def _variables(colours: Mapping[str, tuple[str, str]]) -> str:
    return (
        ":root{"
        + "".join(f"--{name}-ink:{ink};--{name}-paper:{paper};" for name, (ink, paper) in colours.items())
        + "}"
    )
