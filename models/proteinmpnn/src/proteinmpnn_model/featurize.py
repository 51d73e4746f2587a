"""Residues as the arrays that the network takes.

Shapes: l residues of all chains, placeholders of numbering gaps included.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from helixserve.errors import InvalidInputError
from proteinmpnn_model.structures.structure import ALPHABET, BACKBONE, Residue, Structure, is_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHAIN_STRIDE = 100
_POSITION = re.compile(r"(?P<chain>.*):(?P<number>-?\d{1,9})(?P<insertion>[A-Za-z]?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Backbone:
    """What the encoder takes, and the residues that the structure itself has."""

    coordinates: NDArray[np.float32]
    """[l, 4, 3] N, CA, C, O in angstrom; 0 for an atom that is missing."""
    mask: NDArray[np.float32]
    """[l] 1 where all four atoms are there."""
    residue_index: NDArray[np.int64]
    """[l] position along the chain; 100 more from chain to chain."""
    chain: NDArray[np.int64]
    """[l] number of the chain, from 1."""
    native: NDArray[np.int64]
    """[l] index into ALPHABET of the structure's own residue."""

    def __len__(self) -> int:
        return len(self.mask)


def featurize(structure: Structure) -> Backbone:
    """The arrays of a structure, chains in file order."""
    residues = [residue for chain in structure.chains for residue in chain.residues]
    lengths = [len(chain.residues) for chain in structure.chains]
    chain = np.repeat(np.arange(len(lengths), dtype=np.int64) + 1, lengths)
    coordinates = np.array([_positions(residue) for residue in residues], dtype=np.float64).astype(np.float32)
    return Backbone(
        coordinates=coordinates,
        mask=np.array([is_whole(residue) for residue in residues], dtype=np.float32),
        residue_index=np.arange(len(residues), dtype=np.int64) + _CHAIN_STRIDE * (chain - 1),
        chain=chain,
        native=encode_sequence(structure.sequence.replace("/", "")),
    )


def encode_sequence(letters: str) -> NDArray[np.int64]:
    """One-letter codes as indices [l]. Raises ValueError for a letter outside ALPHABET."""
    return np.array([ALPHABET.index(letter) for letter in letters], dtype=np.int64)


def decode_sequence(structure: Structure, residues: NDArray[np.int64]) -> str:
    """Indices [l] as one-letter codes, chains joined by `/`."""
    letters = "".join(ALPHABET[index] for index in residues.tolist())
    parts, start = [], 0
    for chain in structure.chains:
        parts.append(letters[start : start + len(chain.residues)])
        start += len(chain.residues)
    return "/".join(parts)


def check_sequence(structure: Structure, text: str) -> str:
    """`text` with capital letters if it fits the chains. Raises InvalidInputError naming the chain."""
    parts = text.upper().split("/")
    if len(parts) != len(structure.chains):
        names = ", ".join(repr(chain.name) for chain in structure.chains)
        raise InvalidInputError(
            f"the sequence has {len(parts)} chains, the structure has {len(structure.chains)} ({names})",
            where="sequence",
            fix="join the chains in file order by /",
        )
    for chain, part in zip(structure.chains, parts, strict=True):
        if len(part) != len(chain.residues):
            raise InvalidInputError(
                f"chain {chain.name!r} has {len(chain.residues)} residues, its sequence has {len(part)} letters",
                where="sequence",
                fix="write X for each residue that is missing from the numbering",
            )
        unknown = sorted(set(part) - set(ALPHABET))
        if unknown:
            raise InvalidInputError(
                f"chain {chain.name!r} has the letters {', '.join(unknown)}", where="sequence", fix=f"use {ALPHABET}"
            )
    return "/".join(parts)


def check_chains(structure: Structure, names: Collection[str]) -> list[str]:
    """`names` in file order, each once. Raises InvalidInputError for a chain that the structure has not."""
    known, wanted = {chain.name: None for chain in structure.chains}, set(names)
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"there is no chain {name[:20]!r}", where="chains", fix=f"use some of {', '.join(map(repr, known))}"
            )
    return [name for name in known if name in wanted]


def check_positions(structure: Structure, labels: Collection[str]) -> list[str]:
    """`labels` such as `A:12` or `H:100A` in file order, each once.

    Raises InvalidInputError for a label that names no residue of the structure.
    """
    present = [residue.present for chain in structure.chains for residue in chain.residues]
    known = {
        label: at for at, (label, is_there) in enumerate(zip(labels_of(structure), present, strict=True)) if is_there
    }
    found = {}
    for label in labels:
        match = _POSITION.fullmatch(label)
        key = f"{match['chain']}:{int(match['number'])}{match['insertion']}" if match else None
        if key is None or key not in known:
            raise InvalidInputError(
                f"{label[:40]!r} names no residue of the structure",
                where="fixed_positions",
                fix="write chain, colon, residue number and insertion code as in the file, for instance A:12 or H:100A",
            )
        found[known[key]] = key
    return [found[index] for index in sorted(found)]


def labels_of(structure: Structure) -> list[str]:
    """[l] `chain:number` and insertion code of each position, placeholders included."""
    return [
        f"{chain.name}:{residue.number}{residue.insertion}" for chain in structure.chains for residue in chain.residues
    ]


def designed_mask(
    structure: Structure, backbone: Backbone, chains: Collection[str], fixed_positions: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """[l] the residues to choose: in one of `chains`, not fixed, and with a whole backbone."""
    chains, fixed = set(chains), set(fixed_positions)
    names = [chain.name for chain in structure.chains for _ in chain.residues]
    free = [name in chains and label not in fixed for name, label in zip(names, labels_of(structure), strict=True)]
    return np.array(free, dtype=np.bool_) & (backbone.mask > 0)


def _positions(residue: Residue) -> list[tuple[float, float, float]]:
    return [residue.atoms.get(name, (0.0, 0.0, 0.0)) for name in BACKBONE]
