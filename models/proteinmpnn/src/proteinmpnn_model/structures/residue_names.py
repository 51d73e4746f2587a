"""What a residue's name means: which amino acid it is, whether it is one at all, and how it is written in a PDB file.

Force fields name protonation states and ends of chains, some with four letters: `HIE`, `LYSH`, `NALA`
are the amino acid that they are made of. Names are those of AMBER, CHARMM, GROMOS and OPLS.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

import gemmi

STANDARD = {
    "ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E", "GLY": "G", "HIS": "H",
    "ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F", "PRO": "P", "SER": "S", "THR": "T", "TRP": "W",
    "TYR": "Y", "VAL": "V",
}  # fmt: skip

SELENOMETHIONINE = "MSE"
"""Read as methionine, also where it is HETATM, as upstream does."""

_VARIANTS = {
    "ARG": "ARN AR0 ARGN ARGP",
    "ASP": "ASH ASPH ASPP ASPN",
    "CYS": "CYX CYM CYD CYN CYSH CYS2 CYS1 CYSN",
    "GLU": "GLH GLUH GLUP GLUN",
    "HIS": "HID HIE HIP HSD HSE HSP HISA HISB HISD HISE HISH HISP HIS1 HIS2 HISN",
    "LYS": "LYN LYP LSN LYSH LYSN LYSP",
    "MET": "MSE",
    "TYR": "TYM TYRM",
    "TRP": "TRPM",
}
"""Amino acid → names of its states of protonation."""

CODES = STANDARD | {name: STANDARD[parent] for parent, names in _VARIANTS.items() for name in names.split()}
"""Name → one-letter code, of all that are an amino acid by name."""

_WATERS = frozenset(
    ("HOH", "WAT", "H2O", "DOD", "TIP", "TP3", "SOL", "SPC", "T3P", "T4P", "TIP3", "TIP4", "TIP5", "SPCE")
)
_ENDS = {f"{end}{name}": name for end in "NC" for name in ("HID", "HIE", "HIP", "CYX", *STANDARD)}
"""AMBER's names of the first and the last residue of a chain."""

FOUR_LETTERS = (
    {name: parent for parent, names in _VARIANTS.items() for name in names.split() if len(name) == 4}
    | _ENDS
    | {name: "HOH" for name in _WATERS if len(name) == 4}
)
"""Name of four letters → the name of three that stands for it."""


class Kind(Enum):
    """What a group of atoms is."""

    AMINO_ACID = "amino acid"
    WATER = "water"
    OTHER = "other"


def kind_of(name: str, atoms: Collection[str]) -> Kind:
    """What a residue of that name with these atoms is.

    A name that nobody knows is an amino acid's if the atoms of a backbone are there.
    """
    if name in CODES:
        return Kind.AMINO_ACID
    known = gemmi.find_tabulated_residue(name)
    if name in _WATERS or known.is_water():
        return Kind.WATER
    backbone = {"N", "CA", "C"} & set(atoms)
    if known.is_amino_acid() or len(backbone) == 3 or (not known.found() and len(backbone) == 2 and "CA" in atoms):
        return Kind.AMINO_ACID
    return Kind.OTHER
