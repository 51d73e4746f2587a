"""Checks that every shared library which a file needs is there.

    libraries.py FOLDER…

Exit status 1, and a line for each library that is needed in the folders and lies in none of them.
Runs inside the Nix build, standard library only.
"""

import struct
import sys
from pathlib import Path


def main(*folders: Path) -> int:
    """Check the folders together; gives the exit status."""
    missing = unresolved(folders)
    for line in missing:
        sys.stderr.write(f"{line}; add its package to platform/nix/debs.in and run: helix lock --debs\n")
    return 1 if missing else 0


def unresolved(folders: tuple[Path, ...]) -> list[str]:
    """Lines `FILE needs LIBRARY` for each needed shared library that is in none of the folders."""
    there = {path.name for folder in folders for path in folder.rglob("*.so*")}
    lines = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
            absent = [name for name in needed(path.read_bytes()) if name not in there]
            lines += [f"{path.relative_to(folder)} needs {name}" for name in absent]
    return lines


def needed(data: bytes) -> list[str]:
    """The DT_NEEDED names of a 64-bit little-endian ELF file."""
    table, size, count = (*struct.unpack_from("<Q", data, 0x20), *struct.unpack_from("<HH", data, 0x36))
    headers = [struct.unpack_from("<IIQQQQQQ", data, table + index * size) for index in range(count)]
    loads = [(address, offset, length) for kind, _, offset, address, _, length, _, _ in headers if kind == 1]
    dynamic = [(offset, length) for kind, _, offset, _, _, length, _, _ in headers if kind == 2]
    entries = [
        struct.unpack_from("<QQ", data, position)
        for offset, length in dynamic
        for position in range(offset, offset + length, 16)
    ]
    strings = next((value for tag, value in entries if tag == 5), 0)
    base = next((offset + strings - start for start, offset, length in loads if start <= strings < start + length), 0)
    names = [base + value for tag, value in entries if tag == 1]
    return [data[start : data.index(b"\0", start)].decode() for start in names]


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
