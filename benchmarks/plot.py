"""A result as an SVG bar chart, from the standard library alone: the ratio of each row, and what it must reach."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.measure import Row

_LEFT, _RIGHT, _HEIGHT, _BAR = 330, 520, 34, 18


def draw(title: str, rows: Sequence[Row]) -> str:
    """The text of an SVG file."""
    longest = max([1.0, *(max(row.ratio or 0.0, row.at_least or 0.0) for row in rows)])
    scale = (_RIGHT - 90) / longest
    height = 60 + _HEIGHT * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _RIGHT}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="10" y="24" font-size="16">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        y = 44 + _HEIGHT * number
        colour = "#b3261e" if row.short else "#2e6f9e"
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(row.question)}</text>')
        ratio = row.ratio or 0.0  # no bar where noise decides
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{ratio * scale:.1f}" height="{_BAR}" fill="{colour}"/>')
        times = "not decided" if row.ratio is None else f"{row.ratio:g} times"
        label = f"{times} ({row.ours:g} against {row.peer:g} {row.unit})"
        inside = ratio * scale > (_RIGHT - 90) / 2
        x, anchor, fill = (
            (_LEFT + ratio * scale - 6, "end", "white") if inside else (_LEFT + ratio * scale + 6, "start", "black")
        )
        parts.append(f'<text x="{x:.1f}" y="{y + 14}" text-anchor="{anchor}" fill="{fill}">{escape(label)}</text>')
        if row.at_least is not None:
            at = _LEFT + row.at_least * scale
            parts.append(f'<path d="M{at:.1f} {y - 4}V{y + _BAR + 4}" stroke="black" stroke-dasharray="3 2"/>')
    return "\n".join([*parts, "</svg>", ""])
