"""What a reader of a structure did that its sender may not expect: collected while reading, told in every answer."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 10
"""Places that a sentence names; of more it says how many."""

READ_AS_X = "read as X, an unknown amino acid"
NOT_DESIGNED = "kept as they are, neither designed nor scored, for the backbone atoms N, CA, C and O are not all there"
GAPS = "not in the file, but in the numbering: placeholders X stand for them"
FIRST_NAME = "of two names of one residue the first in the file stands"
ALTERNATIVE = "of alternative locations of its backbone the first in the file stands"
MISPLACED = "left out, for ATOM or HETATM does not begin in its first column"
LEFT_OUT = "left out, for they are no amino acids"
HETERO = "left out, for they are HETATM records (amino acids of a chain are ATOM records)"
AGAIN = "left out, for an earlier model of the file has a chain of that name"
BLOCKS = "left out, for only the first data block with atoms is read"
KINDS = (READ_AS_X, NOT_DESIGNED, GAPS, FIRST_NAME, ALTERNATIVE, HETERO, LEFT_OUT, MISPLACED, AGAIN, BLOCKS)


@dataclass(slots=True)
class Notes:
    """Places by kind; each place once, in the order in which they were met."""

    _places: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, kind: str, place: str, count: int = 1) -> None:
        """Note `place`, for instance `A:12 ABC`; a place that is noted again counts."""
        found = self._places.setdefault(kind, {})
        found[place] = found.get(place, 0) + count

    def sentences(self) -> tuple[str, ...]:
        """One sentence a kind, in the order of `KINDS`."""
        return tuple(_sentence(kind, self._places[kind]) for kind in KINDS if kind in self._places)


def _sentence(kind: str, places: dict[str, int]) -> str:
    named = [place if count == 1 else f"{place} ({count} times)" for place, count in places.items()]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f"{', '.join(named[:_SHOWN])}{more}: {kind}"
