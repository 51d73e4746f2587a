"""A PDB or mmCIF file as chains of residues with backbone atoms.

Takes text, gives a `Structure`: per chain, in file order, one `Residue` for every number from
the first to the last, so that a gap in the numbering shows as placeholders. What counts is the
same as in the upstream parser, so that the network is fed the same: of each chain the first model
that it is in, ATOM records of amino acids (and selenomethionine, as methionine), for each atom the
first location in the file, and residues sorted by number and insertion code. What is left out, or
read otherwise than it is written, stands in `Structure.warnings`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import gemmi

from helixserve.errors import InvalidInputError, TooLargeError
from proteinmpnn_model.structures import mmcif_file, notes, pdb_file
from proteinmpnn_model.structures.notes import Notes
from proteinmpnn_model.structures.pdb_file import too_many
from proteinmpnn_model.structures.residue_names import CODES, SELENOMETHIONINE, Kind, kind_of

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"
"""One-letter codes in the network's order; X is unknown or missing."""

UNKNOWN = "X"

BYTE_ORDER_MARK = "\ufeff"
"""Editors put it before the first character; it says nothing."""

BACKBONE = ("N", "CA", "C", "O")

_INSERTION = re.compile("[A-Za-z]")
_LARGEST_COORDINATE_ANGSTROM = 1e5
"""Beyond it float32 no longer resolves a bond; a PDB file cannot hold more either."""

_GROUPS = 10
"""Most residues of any kind in a file, waters included, for each that is served: gemmi looks for an atom's residue
among all of its chain, so that a million of them would take hours."""

Position = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What a file may hold; the names are those of `[limits]` in `model.toml`."""

    atoms: int | None = None
    """Of all models, solvent included."""
    chains: int | None = None
    """Chains of protein."""
    line_characters: int | None = None

    @classmethod
    def of(cls, limits: Mapping[str, int]) -> FileLimits:
        """The limits of a contract."""
        return cls(limits.get("atoms"), limits.get("chains"), limits.get("line_characters"))


UNLIMITED = FileLimits()
"""For files that are trusted."""


@dataclass(slots=True)
class Residue:
    """A residue, or the placeholder of one that the file leaves out."""

    number: int
    insertion: str
    """Insertion code, empty for none."""
    code: str = "X"
    """One-letter code; X is unknown or missing."""
    atoms: dict[str, Position] = field(default_factory=dict)
    """Backbone atom name → position in angstrom."""
    present: bool = True
    """False for a placeholder."""
    locations: set[tuple[str, str]] = field(default_factory=set, compare=False)
    """Backbone atom name and alternative location of what was read of it."""


_Residues = dict[tuple[int, str], Residue]
"""Number and insertion code → residue."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain with its residues by number and insertion code."""

    name: str
    residues: tuple[Residue, ...]


@dataclass(frozen=True, slots=True)
class Structure:
    """The chains of a file, in file order."""

    chains: tuple[Chain, ...]
    warnings: tuple[str, ...] = ()
    """What was left out, or read otherwise than it is written; a sentence for each kind."""

    def __len__(self) -> int:
        return sum(len(chain.residues) for chain in self.chains)

    @property
    def sequence(self) -> str:
        """One-letter codes, chains joined by `/`."""
        return "/".join("".join(residue.code for residue in chain.residues) for chain in self.chains)


def sniff_format(text: str) -> str:
    """`mmcif` or `pdb`, from the first line that says something."""
    for line in text.removeprefix(BYTE_ORDER_MARK).splitlines():
        start = line.strip()
        if start and not start.startswith("#"):
            return "mmcif" if start.lower().startswith("data_") else "pdb"
    return "pdb"


def read_structure(
    text: str, file_format: str, *, residue_limit: int, file_limits: FileLimits = UNLIMITED
) -> Structure:
    """Read a structure.

    Args:
        text: the whole file.
        file_format: `pdb` or `mmcif`.
        residue_limit: largest number of residues, placeholders included.
        file_limits: other limits of what is read.

    Raises InvalidInputError for what is not a structure of proteins with finite coordinates, and
    TooLargeError beyond a limit; `where` is the field, the message names the line or residue.
    """
    text, found = _with_newlines(text.removeprefix(BYTE_ORDER_MARK)), Notes()
    _check_lines(text, file_limits.line_characters)
    chains: dict[str, _Residues] = {}
    for chain in _parse(text, file_format, residue_limit, file_limits, found):
        for group in chain:
            if _is_part_of_a_chain(chain.name, group, found):
                _add(chains.setdefault(chain.name, {}), chain.name, group, found)
    if file_limits.chains is not None and len(chains) > file_limits.chains:
        raise too_many("chains", len(chains), file_limits.chains)
    _check_size(chains, residue_limit)
    read = tuple(Chain(name, _with_gaps(residues)) for name, residues in chains.items())
    if not any(is_whole(residue) for chain in read for residue in chain.residues):
        raise InvalidInputError(
            "the structure has no residue with all of the atoms N, CA, C and O",
            where="structure",
            fix="send the text of a PDB or mmCIF file with a whole protein backbone",
        )
    _note_what_is_not_whole(read, found)
    return Structure(read, found.sentences())


def is_whole(residue: Residue) -> bool:
    """Whether all four backbone atoms are there, so that the network sees the residue."""
    return all(name in residue.atoms for name in BACKBONE)


def _parse(
    text: str, file_format: str, residue_limit: int, file_limits: FileLimits, found: Notes
) -> gemmi.Model | tuple[()]:
    try:
        if file_format == "mmcif":
            block = mmcif_file.first_atoms(text, file_limits.atoms, _GROUPS * residue_limit, found)
            structure = gemmi.Structure() if block is None else gemmi.make_structure_from_block(block)
        else:
            structure = gemmi.read_pdb_string(pdb_file.records(text, file_limits.atoms, found))
    except (RuntimeError, ValueError, IndexError) as error:
        message = " ".join(str(error).split())[:200]
        raise InvalidInputError(
            f"the structure is not readable as {file_format}: {message}", where="structure"
        ) from None
    if len(structure) == 0:
        raise InvalidInputError(
            f"the structure holds no atoms when read as {file_format}",
            where="structure",
            fix="check format (pdb or mmcif)",
        )
    return structure[0]


def _with_newlines(text: str) -> str:
    """Old programs end lines with a carriage return alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _check_lines(text: str, most: int | None) -> None:
    if most is not None:
        longest = max(map(len, text.split("\n")))
        if longest > most:
            raise TooLargeError(
                f"the structure has a line of {longest} characters, at most {most} are served",
                where="structure",
                fix="end each record with a newline",
            )


def _is_part_of_a_chain(chain: str, group: gemmi.Residue, found: Notes) -> bool:
    """Whether a group of atoms is a residue of a protein chain; what is left out, but for water, is noted."""
    kind = kind_of(group.name, {atom.name for atom in group})
    if kind is Kind.AMINO_ACID:
        if group.het_flag == "A" or group.name == SELENOMETHIONINE:
            return True
        found.add(notes.HETERO, f"{_label(chain, group)} {group.name}")
    elif kind is Kind.OTHER:
        found.add(notes.LEFT_OUT, f"{group.name} of chain {chain!r}")
    return False


def _label(chain: str, group: gemmi.Residue) -> str:
    return f"{chain}:{group.seqid.num}{group.seqid.icode.strip()}"


def _add(residues: _Residues, chain: str, group: gemmi.Residue, found: Notes) -> None:
    """Merge an atom group into its residue; of two locations or residue names the first in the file stays."""
    number = group.seqid.num
    if number is None:
        raise InvalidInputError(f"chain {chain!r} has a residue {group.name!r} without a number", where="structure")
    insertion = group.seqid.icode.strip()
    if insertion and not _INSERTION.fullmatch(insertion):
        # A digit would make `A:03` both residue 0 with insertion 3 and residue 3.
        raise InvalidInputError(
            f"chain {chain!r}: the insertion code {insertion!r} of residue {number} is not a letter", where="structure"
        )
    key, label = (number, insertion), _label(chain, group)
    if key not in residues:
        residues[key] = Residue(number, insertion, CODES.get(group.name, "X"))
        if group.name not in CODES:
            found.add(notes.READ_AS_X, f"{label} {group.name}")
    same = residues[key].code == CODES.get(group.name, "X")
    if not same:
        found.add(notes.FIRST_NAME, label)
    if _add_atoms(residues[key], label, group) and same:
        found.add(notes.ALTERNATIVE, label)


def _add_atoms(residue: Residue, label: str, group: gemmi.Residue) -> bool:
    """Whether one of them is only another location of an atom that was read."""
    others = False
    for atom in group:
        if atom.name not in BACKBONE:
            continue
        if (atom.name, atom.altloc) in residue.locations:
            raise InvalidInputError(
                f"residue {label} is there twice: its atom {atom.name} has two positions and no mark that they are "
                "alternatives (column 17 of a PDB file, label_alt_id of mmCIF)",
                where="structure",
                fix="give each molecule a chain name of its own, and each alternative location its letter",
            )
        residue.locations.add((atom.name, atom.altloc))
        position = (atom.pos.x, atom.pos.y, atom.pos.z)
        if not all(math.isfinite(value) and abs(value) <= _LARGEST_COORDINATE_ANGSTROM for value in position):
            raise InvalidInputError(
                f"atom {atom.name} of residue {label} has a coordinate that is not finite, or beyond 1e5 angstrom",
                where="structure",
            )
        others |= residue.atoms.setdefault(atom.name, position) is not position
    return others


def _note_what_is_not_whole(chains: Iterable[Chain], found: Notes) -> None:
    for chain in chains:
        for present, run in groupby(chain.residues, key=lambda residue: residue.present):
            residues = list(run)
            if not present:
                first, last = residues[0].number, residues[-1].number
                found.add(notes.GAPS, f"{chain.name}:{first}" + (f" to {last}" if last > first else ""))
                continue
            for residue in residues:
                if not is_whole(residue):
                    found.add(notes.NOT_DESIGNED, f"{chain.name}:{residue.number}{residue.insertion}")


def _check_size(chains: dict[str, _Residues], limit: int) -> None:
    """Count before any placeholder is made: two residues numbered 1 and 9999 are 9999 residues."""
    total = 0
    for found in chains.values():
        numbers = {number for number, _ in found}
        total += len(found) + (max(numbers) - min(numbers) + 1 - len(numbers))
    if total > limit:
        present = sum(len(found) for found in chains.values())
        raise TooLargeError(
            f"the structure has {total} residues ({present} in the file, {total - present} in numbering gaps), "
            f"at most {limit} are served",
            where="structure",
            fix="leave out chains, solvent, or residues far away in numbering",
        )


def _with_gaps(found: _Residues) -> tuple[Residue, ...]:
    ordered = sorted(found)
    filled: list[Residue] = []
    for key in ordered:
        if filled:
            filled.extend(Residue(missing, "", present=False) for missing in range(filled[-1].number + 1, key[0]))
        filled.append(found[key])
    return tuple(filled)
