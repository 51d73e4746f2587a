"""How far apart two answers are, element by element: for machines whose bits differ by right. Pure.

Numbers of floating point are compared by a tolerance, everything else (text, integers, booleans,
names, types, shapes) exactly.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import Json, encode_number
from helix_lineage.formats.typed import Tensor, decode

_FLOATS = {"FP16": "<e", "FP32": "<f", "FP64": "<d"}


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a replayed answer is from the recorded one."""

    tolerance: float
    """What was allowed: absolute below 1, relative above."""
    elements: int
    """Numbers that were compared by it."""
    largest_absolute: float
    largest_relative: float
    """Over elements that are not zero in the recorded answer."""
    worst: str | None
    """Where the largest absolute deviation is: tensor, element, both values. None when nothing deviates."""
    unequal: tuple[str, ...]
    """Tensors that differ in what must be the same exactly, with how."""
    beyond: int
    """Numbers that deviate by more than is allowed."""

    @property
    def within(self) -> bool:
        """Is everything as it must be?"""
        return not self.unequal and not self.beyond

    @property
    def sentence(self) -> str:
        """For people."""
        if self.unequal:
            return f"not to be compared by a tolerance: {'; '.join(self.unequal)}"
        text = f"{self.elements} numbers, largest deviation {self.largest_absolute:.3g} absolute, "
        text += f"{self.largest_relative:.3g} relative; allowed {self.tolerance:g}"
        return f"{text}; {self.beyond} beyond it, the worst {self.worst}" if self.beyond else text

    def to_json(self) -> dict[str, Json]:
        """As JSON values."""
        return {
            "tolerance": self.tolerance,
            "within": self.within,
            "elements": self.elements,
            "largest_absolute": encode_number(self.largest_absolute),
            "largest_relative": encode_number(self.largest_relative),
            "worst": self.worst,
            "unequal": list(self.unequal),
            "beyond": self.beyond,
        }


def compare(recorded: bytes, replayed: bytes, tolerance: float) -> Deviation:
    """Compare two typed values.

    A number is within the tolerance when `|a - b| ≤ tolerance · max(1, |a|)`, a being the recorded one. Not-a-number
    equals itself only, an infinity its own sign only: anything else is infinitely far.
    """
    try:
        left = {tensor.name: tensor for tensor in decode(recorded)}
        right = {tensor.name: tensor for tensor in decode(replayed)}
    except CanonicalError as error:
        return Deviation(tolerance, 0, 0.0, 0.0, None, (f"one of the answers is not a typed value: {error}",), 0)
    unequal: list[str] = []
    absolute = relative = 0.0
    elements = beyond = 0
    worst = None
    for name in sorted(left.keys() | right.keys()):
        if text := _unequal(name, left.get(name), right.get(name)):
            unequal.append(text)
        elif left[name].datatype in _FLOATS:
            for at, (one, other) in enumerate(_pairs(left[name], right[name])):
                elements += 1
                gap = _gap(one, other)
                if gap > absolute:
                    absolute, worst = gap, f"tensor {name!r}, element {at}: recorded {one!r}, replayed {other!r}"
                if one and math.isfinite(one):
                    relative = max(relative, gap / abs(one))
                beyond += gap > tolerance * max(1.0, abs(one) if math.isfinite(one) else 1.0)
    return Deviation(tolerance, elements, absolute, relative, worst, tuple(unequal), beyond)


def _unequal(name: str, one: Tensor | None, other: Tensor | None) -> str | None:
    """What of a tensor must be the same and is not."""
    if one is None or other is None:
        return f"tensor {name!r} is only in the {'replayed' if one is None else 'recorded'} answer"
    if (one.datatype, one.shape) != (other.datatype, other.shape):
        return f"tensor {name!r} was {one.datatype} {list(one.shape)}, now {other.datatype} {list(other.shape)}"
    if one.datatype not in _FLOATS and one.data != other.data:
        return f"tensor {name!r} ({one.datatype}) must be the same exactly"
    return None


def _pairs(one: Tensor, other: Tensor) -> Iterator[tuple[float, float]]:
    shape = _FLOATS[one.datatype]
    left, right = (struct.iter_unpack(shape, bytes(tensor.data)) for tensor in (one, other))  # type: ignore[arg-type]
    for (a,), (b,) in zip(left, right, strict=True):
        yield a, b


def _gap(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    return abs(one - other) if math.isfinite(one) and math.isfinite(other) else math.inf
