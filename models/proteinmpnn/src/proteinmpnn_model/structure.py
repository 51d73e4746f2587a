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
from collections.abc import Mapping
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

_BLANKS = " \t\r"
"""Around a number. Python's own strip() also takes control characters away, before which gemmi reads no number."""
_COORDINATE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_RESIDUE_NUMBER = re.compile(r"-?\d+|[A-Z][0-9A-Z]{3}|[a-z][0-9a-z]{3}", re.ASCII)
"""Decimal, or hybrid-36 for numbers above 9999."""
_INSERTION = re.compile("[A-Za-z]")
_LARGEST_COORDINATE_ANGSTROM = 1e5
"""Beyond it float32 no longer resolves a bond; a PDB file cannot hold more either."""

_CIF_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_MODELS = 10_000
"""Most models of a PDB file, and blocks of an mmCIF file: gemmi compares the name of each with all before it."""
_BLOCK = re.compile(r"(?<!\S)(?:data_|save_)", re.IGNORECASE)
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


def read_structure(
    text: str, file_format: str, *, residue_limit: int, file_limits: FileLimits = UNLIMITED
) -> Structure:
    """Read a structure.

    Args:
        text: the whole file.
        file_format: `pdb` or `mmcif`.
        residue_limit: largest number of residues, placeholders included.
        file_limits: other limits of what is read.

    Raises InvalidInputError for what is no structure of proteins with finite coordinates, and
    TooLargeError beyond a limit; `where` is the field, the message names the line or residue.
    """
    _check_lines(text, file_limits.line_characters)
    model = _parse(text, file_format, residue_limit, file_limits)
    chains: dict[str, dict[tuple[int, str], Residue]] = {}
    for chain in model:
        for group in chain:
            if group.het_flag == "A" or group.name == "MSE":
                _add(chains.setdefault(chain.name, {}), chain.name, group)
    _check_most("chains", len(chains), file_limits.chains)
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


def _parse(text: str, file_format: str, residue_limit: int, file_limits: FileLimits) -> gemmi.Model:
    try:
        if file_format == "mmcif":
            _check_blocks(text)
            blocks = [block for block in gemmi.cif.read_string(text) if block.find_loop("_atom_site.id")]
            if blocks:
                _check_most("atoms", len(blocks[0].find_loop("_atom_site.id")), file_limits.atoms)
                _keep_first_model(blocks[0])
                _check_cif_letters(blocks[0])
                _check_cif_numbers(blocks[0], _GROUPS * residue_limit)
            structure = gemmi.make_structure_from_block(blocks[0]) if blocks else gemmi.Structure()
        else:
            structure = gemmi.read_pdb_string(_pdb_records(text, file_limits.atoms))
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


def _check_lines(text: str, most: int | None) -> None:
    if most is not None:
        longest = max(map(len, text.split("\n")))
        if longest > most:
            raise TooLargeError(
                f"the structure has a line of {longest} characters, at most {most} are served",
                where="structure",
                fix="end each record with a newline",
            )


def _check_blocks(text: str) -> None:
    lower = text.lower()
    if lower.count("data_") + lower.count("save_") > _MODELS:  # which also counts what is no block, but is fast
        _check_most("blocks", len(_BLOCK.findall(text)), _MODELS)


def _check_most(what: str, count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise TooLargeError(
            f"the structure has {count} {what}, at most {most} are served",
            where="structure",
            fix="leave out models, chains or solvent",
        )


def _keep_first_model(block: gemmi.cif.Block) -> None:
    """Leave nothing in the block but the atoms of the first model: gemmi builds all of them, and all else besides."""
    loop = block.find_loop("_atom_site.id").get_loop()
    for item in list(block):
        if item.loop is None or "_atom_site.id" not in [tag.lower() for tag in item.loop.tags]:
            item.erase()
    models = list(block.find_loop("_atom_site.pdbx_PDB_model_num"))
    if len(set(models)) > 1:
        columns = [list(block.find_loop(tag)) for tag in loop.tags]
        loop.set_all_values([[v for v, m in zip(column, models, strict=True) if m == models[0]] for column in columns])


def _check_cif_letters(block: gemmi.cif.Block) -> None:
    for text in block.find_loop("_atom_site.id").get_loop().values:
        if not text.isascii():  # gemmi keeps one byte of an insertion code
            raise InvalidInputError(f"_atom_site holds {text[:20]!r}, with letters beyond ASCII", where="structure")


def _check_cif_numbers(block: gemmi.cif.Block, most_groups: int) -> None:
    names = ("auth_asym_id", "label_asym_id", "auth_seq_id", "label_seq_id", "pdbx_PDB_ins_code", "label_comp_id")
    columns = {name: list(block.find_loop(f"_atom_site.{name}")) for name in names}
    for name in ("auth_seq_id", "label_seq_id"):
        # gemmi lets a number wrap around.
        wide = [text for text in set(columns[name]) if _CIF_INTEGER.fullmatch(text) and not _fits_32_bits(text)]
        if wide:
            raise InvalidInputError(
                f"_atom_site.{name} holds {wide[0][:20]}, which is no residue number", where="structure"
            )
    _check_most("residues", len(set(zip(*filter(None, columns.values()), strict=True))), most_groups)


def _fits_32_bits(text: str) -> bool:
    return len(text) <= 11 and -(2**31) <= int(text) < 2**31


def _pdb_records(text: str, most_atoms: int | None) -> str:
    """The lines that count, checked: gemmi reads a field that holds no number as 0, and a design on it would lie."""
    kept, atoms, models = [], 0, 0
    # gemmi takes record names in small letters too, and only newlines end a line.
    for number, line in enumerate(text.split("\n"), start=1):
        record = line[:4].upper()
        if record in ("ATOM", "HETA"):
            atoms += 1
            _check_pdb_columns(number, line)
        elif record in ("MODE", "ENDM"):
            models += 1
        elif record[:3] not in ("TER", "END"):
            continue
        kept.append(line)
    _check_most("atoms", atoms, most_atoms)
    _check_most("models", models, _MODELS)
    return "\n".join(kept)


def _check_pdb_columns(number: int, line: str) -> None:
    if not line.isascii():  # gemmi counts bytes, and would cut a letter in two
        raise InvalidInputError(f"line {number} holds letters beyond ASCII", where="structure")
    if not _RESIDUE_NUMBER.fullmatch(line[22:26].strip(_BLANKS)):
        raise InvalidInputError(f"line {number}: columns 23-26 hold no residue number", where="structure")
    for start in (30, 38, 46):
        if not _COORDINATE.fullmatch(line[start : start + 8].strip(_BLANKS)):
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
    if insertion and not _INSERTION.fullmatch(insertion):
        # A digit would make `A:03` both residue 0 with insertion 3 and residue 3.
        raise InvalidInputError(
            f"chain {chain!r}: the insertion code {insertion!r} of residue {number} is no letter", where="structure"
        )
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
