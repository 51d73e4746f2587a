"""A PDB or mmCIF file as chains of residues with backbone atoms.

Takes text, gives a `Structure`: per chain, in file order, one `Residue` for every number from
the first to the last, so that a gap in the numbering shows as placeholders. What counts is the
same as in the upstream parser, so that the network is fed the same: the first model, ATOM
records (and selenomethionine, as methionine), for each atom the first location in the file,
and residues sorted by number and insertion code.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import gemmi

from helixserve.errors import InvalidInputError, TooLargeError

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"
"""One-letter codes in the network's order; X is unknown or missing."""

BACKBONE = ("N", "CA", "C", "O")

_CODES = {
    "ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E", "GLY": "G", "HIS": "H",
    "ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F", "PRO": "P", "SER": "S", "THR": "T", "TRP": "W",
    "TYR": "Y", "VAL": "V", "MSE": "M",
}  # fmt: skip

_COORDINATE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_RESIDUE_NUMBER = re.compile(r"-?\d+|[A-Z][0-9A-Z]{3}|[a-z][0-9a-z]{3}", re.ASCII)
"""Decimal, or hybrid-36 for numbers above 9999."""
_LARGEST_COORDINATE_ANGSTROM = 1e5
"""Beyond it float32 no longer resolves a bond; a PDB file cannot hold more either."""

Position = tuple[float, float, float]


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


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain with its residues by number and insertion code."""

    name: str
    residues: tuple[Residue, ...]


@dataclass(frozen=True, slots=True)
class Structure:
    """The chains of a file's first model, in file order."""

    chains: tuple[Chain, ...]

    def __len__(self) -> int:
        return sum(len(chain.residues) for chain in self.chains)

    @property
    def sequence(self) -> str:
        """One-letter codes, chains joined by `/`."""
        return "/".join("".join(residue.code for residue in chain.residues) for chain in self.chains)


def sniff_format(text: str) -> str:
    """`mmcif` or `pdb`, from the first line that says something."""
    for line in text.splitlines():
        start = line.strip()
        if start and not start.startswith("#"):
            return "mmcif" if start.lower().startswith("data_") else "pdb"
    return "pdb"


def read_structure(text: str, file_format: str, *, residue_limit: int) -> Structure:
    """Read a structure.

    Args:
        text: the whole file.
        file_format: `pdb` or `mmcif`.
        residue_limit: largest number of residues, placeholders included.

    Raises InvalidInputError for what is no structure of proteins with finite coordinates, and
    TooLargeError beyond the limit; `where` is the field, the message names the line or residue.
    """
    if file_format == "pdb":
        _check_pdb_columns(text)
    model = _parse(text, file_format)
    chains: dict[str, dict[tuple[int, str], Residue]] = {}
    for chain in model:
        for group in chain:
            if group.het_flag == "A" or group.name == "MSE":
                _add(chains.setdefault(chain.name, {}), chain.name, group)
    _check_size(chains, residue_limit)
    structure = Structure(tuple(Chain(name, _with_gaps(found)) for name, found in chains.items()))
    if not any(is_whole(residue) for chain in structure.chains for residue in chain.residues):
        raise InvalidInputError(
            "the structure has no residue with all of the atoms N, CA, C and O",
            where="structure",
            fix="send the text of a PDB or mmCIF file with a whole protein backbone",
        )
    return structure


def is_whole(residue: Residue) -> bool:
    """Whether all four backbone atoms are there, so that the network sees the residue."""
    return all(name in residue.atoms for name in BACKBONE)


def _parse(text: str, file_format: str) -> gemmi.Model:
    try:
        if file_format == "mmcif":
            blocks = [block for block in gemmi.cif.read_string(text) if block.find_loop("_atom_site.id")]
            structure = gemmi.make_structure_from_block(blocks[0]) if blocks else gemmi.Structure()
        else:
            structure = gemmi.read_pdb_string(text)
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


def _check_pdb_columns(text: str) -> None:
    # gemmi reads a field that holds no number as 0 and goes on; a design on such a backbone would lie.
    # It takes record names in small letters too, and only newlines end a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line[:4].upper() not in ("ATOM", "HETA"):
            continue
        if not _RESIDUE_NUMBER.fullmatch(line[22:26].strip()):
            raise InvalidInputError(f"line {number}: columns 23-26 hold no residue number", where="structure")
        for start in (30, 38, 46):
            if not _COORDINATE.fullmatch(line[start : start + 8].strip()):
                raise InvalidInputError(
                    f"line {number}: the coordinate in columns {start + 1}-{start + 8} is no finite number",
                    where="structure",
                )


def _add(residues: dict[tuple[int, str], Residue], chain: str, group: gemmi.Residue) -> None:
    """Merge an atom group into its residue; of two locations or residue names the first in the file stays."""
    number = group.seqid.num
    if number is None:
        raise InvalidInputError(f"chain {chain!r} has a residue {group.name!r} without a number", where="structure")
    insertion = group.seqid.icode.strip()
    residue = residues.setdefault((number, insertion), Residue(number, insertion, _CODES.get(group.name, "X")))
    for atom in group:
        if atom.name in BACKBONE and atom.name not in residue.atoms:
            position = (atom.pos.x, atom.pos.y, atom.pos.z)
            if not all(math.isfinite(value) and abs(value) <= _LARGEST_COORDINATE_ANGSTROM for value in position):
                label = f"{chain}:{number}{insertion}"
                raise InvalidInputError(
                    f"atom {atom.name} of residue {label} has a coordinate that is not finite, or beyond 1e5 angstrom",
                    where="structure",
                )
            residue.atoms[atom.name] = position


def _check_size(chains: dict[str, dict[tuple[int, str], Residue]], limit: int) -> None:
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


def _with_gaps(found: dict[tuple[int, str], Residue]) -> tuple[Residue, ...]:
    ordered = sorted(found)
    filled: list[Residue] = []
    for key in ordered:
        if filled:
            filled.extend(Residue(missing, "", present=False) for missing in range(filled[-1].number + 1, key[0]))
        filled.append(found[key])
    return tuple(filled)
