"""Finishes the base root filesystem: accounts, mount points, byte code; and checks it.

Takes the folder that the Debian packages were unpacked into; runs inside the Nix build, with
the Python of that folder. Exit status 1 when a shared library that a file needs is missing.
"""

import compileall
import py_compile
import shutil
import struct
import sys
from pathlib import Path

MOUNT_POINTS = ("dev", "proc", "sys", "run", "tmp", "etc/helix", "var/lib/helix/log", "opt/helix")
"""What a runtime mounts over; the root is read-only, so they must be there."""

UNWANTED = (
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/info",
    "usr/share/applications",
    "usr/share/pixmaps",
    "usr/lib/python3.11/lib-dynload/nis.cpython-311-x86_64-linux-gnu.so",  # would pull in Kerberos
    "etc/motd",
)

ETC = {
    "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nhelix:x:65532:65532:helix:/tmp:/usr/sbin/nologin\n",
    "group": "root:x:0:\nhelix:x:65532:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def main(root: Path) -> int:
    """Finish and check the folder; gives the exit status."""
    for name in UNWANTED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
    for path in (root / "usr/share/doc").rglob("*"):
        if (path.is_file() or path.is_symlink()) and path.name != "copyright" and not path.is_dir():
            path.unlink()
    for name in MOUNT_POINTS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    library = root / "usr/lib/python3.11"
    # Byte code that names its source by hash holds no time stamp.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(library, quiet=2, stripdir=str(root), prependdir="/", invalidation_mode=mode, workers=1)
    missing = unresolved(root)
    for line in missing:
        print(f"base: {line}; add its package to platform/nix/debs.in and run: helix lock --debs", file=sys.stderr)
    return 1 if missing else 0


def unresolved(root: Path) -> list[str]:
    """Lines `FILE needs LIBRARY` for each needed shared library that is not in the folder."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    there = {path.name for path in root.rglob("*.so*")}
    lines = []
    for path in files:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        lines += [f"{path.relative_to(root)} needs {name}" for name in needed(path.read_bytes()) if name not in there]
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
    raise SystemExit(main(Path(sys.argv[1])))
