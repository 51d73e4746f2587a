"""The ATOM and HETATM records of a PDB file that count, as gemmi reads them right.

PDB files come from many programs. What differs is settled here, line by line: END or ENDMDL between
chains, names of four letters in columns 18 to 21, and chains that a later model has again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from helixserve.errors import InvalidInputError, TooLargeError
from proteinmpnn_model.structures import notes
from proteinmpnn_model.structures.notes import Notes
from proteinmpnn_model.structures.residue_names import FOUR_LETTERS, SELENOMETHIONINE

MODELS = 10_000
"""Most models of a file."""
_BLANKS = " \t\r"
"""Around a number. Python's own strip() also takes control characters away, before which gemmi reads no number."""
_COORDINATE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_RESIDUE_NUMBER = re.compile(r"-?\d+|[A-Z][0-9A-Z]{3}|[a-z][0-9a-z]{3}", re.ASCII)
"""Decimal, or hybrid-36 for numbers above 9999."""
_MISPLACED = re.compile(r"[^A-Za-z0-9]+(?:ATOM|HETATM)\b", re.IGNORECASE)
"""A record behind blanks or marks, as in a mail or a program's text."""
_MARK = "\ufeff"
"""A byte-order mark, which each of several files that were put together may begin with."""
_BREAKS = ("MODE", "ENDM", "END")


@dataclass(frozen=True, slots=True)
class _Record:
    line: str
    part: int
    """Number of the model, or of the part of the file that END closes."""

    @property
    def is_protein(self) -> bool:
        """Whether it may be of a residue that counts."""
        return self.line[:4].upper() == "ATOM" or self.line[17:20].upper() == SELENOMETHIONINE

    @property
    def four(self) -> str:
        """The letter in column 21, which is part of a residue's name or of a chain's; empty for none."""
        return self.line[20:21].strip()


def records(text: str, most_atoms: int | None, found: Notes) -> str:
    """The records as lines for gemmi, without any that ends or divides a file: each chain of the first part it is in.

    What is left out is noted. Raises InvalidInputError for a record that holds no number where one should be,
    TooLargeError beyond a limit.
    """
    every = list(_records(text, most_atoms, found))
    names = _four_letter_names(every)
    read = [(_with_three_letters(record.line) if record.four in names else record.line, record) for record in every]
    # Waters and ligands of a chain's name, in an earlier part of the file, are no chain yet.
    home: dict[str, int] = {}
    for line, record in read:
        if record.is_protein:
            home.setdefault(line[20:22].strip(), record.part)
    lines, again = [], dict[tuple[int, str], None]()
    for line, record in read:
        chain = line[20:22].strip()
        at = home.setdefault(chain, record.part)
        if at == record.part or (at > record.part and not record.is_protein):
            lines.append(line)
        elif record.is_protein:
            again[record.part, chain] = None
    for part, chain in again:
        found.add(notes.AGAIN, f"chain {chain!r} of part {part + 1}" if chain else f"part {part + 1}")
    # gemmi counts the newline when it asks whether a line is long enough, that of the last line too.
    return "".join(f"{line}\n" for line in lines)


def _records(text: str, most_atoms: int | None, found: Notes) -> Iterator[_Record]:
    """The lines that count, checked: gemmi reads a field that holds no number as 0, and a design on it would lie."""
    atoms, part, open_part, models = 0, 0, False, 0
    # gemmi takes record names in small letters too, and only newlines end a line.
    for number, written in enumerate(text.split("\n"), start=1):
        line = written.removeprefix(_MARK)
        record = line[:4].upper()
        if record in ("ATOM", "HETA"):
            atoms += 1
            if most_atoms is not None and atoms > most_atoms:
                # Counted to the end, so that the message says how many there are.
                atoms = sum(other[:4].upper() in ("ATOM", "HETA") for other in text.split("\n"))
                raise too_many("atoms", atoms, most_atoms)
            _check_columns(number, line)
            open_part = True
            yield _Record(line, part)
        elif record.rstrip(_BLANKS) in _BREAKS or record[:3] == "END":
            models += record in ("MODE", "ENDM")
            if models > MODELS:
                raise too_many("models", models, MODELS)
            part, open_part = part + open_part, False
        elif _MISPLACED.match(line):
            found.add(notes.MISPLACED, f"line {number}")


def too_many(what: str, count: int, most: int) -> TooLargeError:
    """More than is served of something."""
    return TooLargeError(
        f"the structure has {count} {what}, at most {most} are served",
        where="structure",
        fix="leave out models, chains or solvent",
    )


def _check_columns(number: int, line: str) -> None:
    if not line.isascii():  # gemmi counts bytes, and would cut a letter in two
        raise InvalidInputError(f"line {number} holds letters beyond ASCII", where="structure")
    if not _RESIDUE_NUMBER.fullmatch(line[22:26].strip(_BLANKS)):
        raise InvalidInputError(f"line {number}: columns 23-26 hold no residue number", where="structure")
    for start in (30, 38, 46):
        if not _COORDINATE.fullmatch(line[start : start + 8].strip(_BLANKS)):
            raise InvalidInputError(
                f"line {number}: the coordinate in columns {start + 1}-{start + 8} is not a finite number",
                where="structure",
            )


def _four_letter_names(every: list[_Record]) -> set[str]:
    """The letters that column 21 holds as the last one of residue names; others begin a chain's name of two letters.

    A letter is a name's if every residue that has it there bears a name of four letters then (`LYSH`, `NALA`).
    """
    seen: dict[str, bool] = {}
    for record in every:
        if record.four:
            name = record.line[17:21].upper()
            seen[record.four] = seen.get(record.four, True) and name in FOUR_LETTERS
    return {letter for letter, fits in seen.items() if fits}


def _with_three_letters(line: str) -> str:
    return f"{line[:17]}{FOUR_LETTERS[line[17:21].upper()]} {line[21:]}"
