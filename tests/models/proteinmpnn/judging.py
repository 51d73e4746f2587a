"""Judges what `decisions` measured: does every number keep its margin to its limit? Pure; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.models.proteinmpnn import tolerances

Found = Mapping[str, Any]


def short(found: Found) -> list[str]:
    """The judged numbers that lie beyond their limit, or nearer to it than the margin."""
    numbers = {f"{row['case']}: {row['metric']}": (row["value"], row["allowed"]) for row in _judged_rows(found)}
    for name, upstream in found["upstream"].items():
        numbers[f"{name}, kernels against upstream"] = (upstream["native"], tolerances.NATIVE)
        numbers[f"{name}, float64 against upstream"] = (upstream["float64"], tolerances.DOUBLE)
        numbers[f"{name}, another sequence than upstream's"] = (not upstream["same_sequence"], 0)
    numbers["golden numbers written again"] = (found["golden"]["float64"], tolerances.GOLDEN)
    return [
        f"{what} is {value}, allowed {limit}" for what, (value, limit) in numbers.items() if not _held(value, limit)
    ]


def judged(found: Found) -> list[Any]:
    """The gate's judged rows, less the one that compares both widths: it is there only where both run."""
    return [row for row in _judged_rows(found) if "by the kernels of" not in row["case"]]


def reported(found: Found) -> list[float]:
    """How far float32 lies from float64 at each structure: reported, not judged."""
    return [row["value"] for row in found["rows"] if row["allowed"] is None]


def by_float32(found: Found) -> Found:
    """What a gate would judge that took the network in float32 for its reference."""
    rows = [{**row, "allowed": tolerances.NATIVE} for row in found["rows"] if row["allowed"] is None]
    return {**found, "rows": rows}


def _judged_rows(found: Found) -> list[Any]:
    return [row for row in found["rows"] if row["allowed"] is not None]


def _held(value: float, limit: float) -> bool:
    return tolerances.MARGIN * value <= limit
