"""Attacks the readers of PDB and mmCIF files, guided by coverage: `python -m tests.models.proteinmpnn.fuzz_structure`.

Whatever a file holds, it is refused with a sentence, or read into a structure that an independent
check finds sound. libFuzzer drives it (atheris); `--weaken` plants a fault that it must find.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proteinmpnn_model"]):
    from proteinmpnn_model import featurize
    from proteinmpnn_model.structures import notes, pdb_file, structure

import numpy as np

from helixserve.errors import HelixServeError
from tests.campaign import Broken, Campaign

RESIDUES, CHAINS, ATOMS, LINE = 60, 6, 400, 300
LIMITS = structure.FileLimits(atoms=ATOMS, chains=CHAINS, line_characters=LINE)
TOKENS = (
    *("ATOM  ", "HETATM", "MODEL ", "ENDMDL", "TER", "END", "MSE", "data_", "loop_", "save_", "_atom_site.id"),
    *("nan", "inf", "-inf", "1e308", "1e300", "-1e6", "99999999", "4294967297", "-2147483649", "?", ".", "''"),
    *("\\x00", "\\x0a", "\\x0d", "\\x09", "\\xc3\\xb8", "\\xed\\xa0\\x80", ";", "#", "_atom_site.Cartn_x", "A000"),
)


def attack(text: str, file_format: str) -> bool:
    """Read a file; whether it was taken. Raises Broken for a reading that is not sound."""
    try:
        found = structure.read_structure(text, file_format, residue_limit=RESIDUES, file_limits=LIMITS)
    except HelixServeError as error:
        if error.http_status >= 500 or error.where != "structure" or len(str(error)) > 1000:
            raise Broken(f"{error.http_status}: {error}") from error
        return False
    check(found)
    if file_format == "pdb":
        check_pdb_numbers(text)
    if found != structure.read_structure(text, file_format, residue_limit=RESIDUES, file_limits=LIMITS):
        raise Broken("the same file was read differently")
    return True


def check(found: structure.Structure) -> None:
    """The structure holds what the network may be given."""
    if not (0 < len(found) <= RESIDUES and len(found.chains) <= CHAINS):
        raise Broken(f"{len(found)} residues, {len(found.chains)} chains")
    if len({chain.name for chain in found.chains}) != len(found.chains):
        raise Broken("two chains of one name")
    for chain in found.chains:
        keys = [(residue.number, residue.insertion) for residue in chain.residues]
        if keys != sorted(set(keys)) or any(b[0] - a[0] > 1 for a, b in itertools.pairwise(keys)):
            raise Broken(f"chain {chain.name}: residues out of order, double, or with a gap")
    values = [v for c in found.chains for r in c.residues for position in r.atoms.values() for v in position]
    if not all(math.isfinite(value) and abs(value) <= 1e5 for value in values):
        raise Broken("a coordinate that is not finite, or too large")
    backbone = featurize.featurize(found)
    if len(backbone) != len(found) or not np.isfinite(backbone.coordinates).all() or not backbone.mask.any():
        raise Broken("arrays that do not fit the structure")
    present = [residue.present for chain in found.chains for residue in chain.residues]
    labels = [label for label, is_there in zip(featurize.labels_of(found), present, strict=True) if is_there]
    if len(set(featurize.labels_of(found))) != len(found):
        raise Broken("two positions of one label")
    if len(found.warnings) > len(notes.KINDS) or any(len(sentence) > 2000 for sentence in found.warnings):
        raise Broken("warnings without end")
    if featurize.check_sequence(found, found.sequence) != found.sequence:
        raise Broken("the structure's own sequence does not fit it")
    if all(re.fullmatch(r"[ -~]*", label) for label in labels):
        featurize.check_positions(found, labels)


def check_pdb_numbers(text: str) -> None:
    """Every atom of a PDB file that was taken has three finite numbers in its columns, read by Python itself."""
    for line in re.split("\n|\r", text):
        if line[:4].upper() in ("ATOM", "HETA"):
            for start in (30, 38, 46):
                if not math.isfinite(_number(line[start : start + 8])):
                    raise Broken(f"taken: {line!r}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def weaken() -> None:
    """Plant a fault: columns that hold no number count, and so do coordinates of any size."""
    pdb_file._COORDINATE = re.compile(".*", re.DOTALL)
    structure._LARGEST_COORDINATE_ANGSTROM = math.inf


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's own mutations of bytes, or a change that leaves the file's shape: a word, or a line."""
    draw = random.Random(seed)
    if draw.random() < 0.4:
        return bytes(atheris.Mutate(data, max_size))
    lines = data.split(b"\n")
    here, there = draw.randrange(len(lines)), draw.randrange(len(lines))
    change = draw.randrange(5)
    if change == 0:
        lines.insert(there, lines[here])
    elif change == 1:
        lines[here], lines[there] = lines[there], lines[here]
    elif change == 2:
        del lines[here]
    else:
        rows = [number for number, line in enumerate(lines) if len(line.split()) > 5] or [here]
        row = draw.choice(rows)
        lines[row] = _with_another_word(lines[row], draw, keep_columns=change == 3)
    return b"\n".join(lines)[:max_size]


def _with_another_word(line: bytes, draw: random.Random, *, keep_columns: bool) -> bytes:
    words = [match.span() for match in re.finditer(rb"\S+", line)]
    if not words:
        return line
    start, end = draw.choice(words)
    word = draw.choice(TOKENS).encode().decode("unicode_escape").encode("latin-1")
    return line[:start] + (word.rjust(end - start)[: end - start] if keep_columns else word) + line[end:]


def main() -> None:
    """Run libFuzzer for a number of cases, then end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=["pdb", "mmcif"])
    parser.add_argument("corpus", type=Path, help="a folder of files to begin with; it is not written to")
    parser.add_argument("--times", type=int, default=1, help="how many times the cases of `make test`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weaken", action="store_true", help="plant a fault")
    options = parser.parse_args()
    if options.weaken:
        weaken()
    campaign = Campaign.of(f"{options.format} atheris", times=options.times)
    taken = 0

    def one(data: bytes) -> None:
        nonlocal taken
        with campaign.case():
            taken += attack(data.decode(errors="replace"), options.format)
        if campaign.count == campaign.wanted:
            print(f"{campaign.finish()}, {taken} taken")

    scratch = Path(tempfile.mkdtemp(prefix="helix-fuzz-"))  # what fails stays there, for libFuzzer ends the process
    (scratch / "found").mkdir()
    dictionary = scratch / "tokens.txt"
    dictionary.write_text("".join(f'"{token}"\n' for token in TOKENS))
    arguments = [
        sys.argv[0],
        f"-seed={options.seed}",
        f"-runs={campaign.wanted}",
        f"-dict={dictionary}",
        "-timeout=30",
        f"-artifact_prefix={scratch}/",
        "-max_len=6000",
        "-rss_limit_mb=1500",
        "-len_control=0",
        str(scratch / "found"),
        str(options.corpus),
    ]
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
