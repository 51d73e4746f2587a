"""Packs a folder into OCI layers that have the same bytes whenever and wherever they are made.

    layers.py OUT SOURCE PREFIX WHEELS [SOURCE PREFIX]…

SOURCE is a folder, PREFIX where it lies in the image, WHEELS a file that maps each distribution
to its files (then every large one gets a layer of its own) or empty; further folders go into the
last layer. The variable WITHOUT may hold a JSON list of files and folders of SOURCE that stay out, with
their byte code. Gives, under OUT,
`blobs/sha256/<hex>` and `layers.json`: a list, bottom first, of `{"digest", "size", "diff_id",
"files"}`, where a file is `{"path", "digest", "size", "mode"}` or `{"path", "link"}`. Runs inside
the Nix build, standard library only.
"""

import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LARGE_BYTES = 16 << 20
"""A distribution of this size gets its own layer."""

STORE_PATH = re.compile(rb"/nix/store/[0-9a-df-np-sv-z]{32}-")
SHARED_FOLDERS = {"tmp": 0o1777}
"""Folders whose mode the Nix store forgets."""


def main(out: Path, source: Path, prefix: str, wheels: str, *more: str) -> None:
    """Pack SOURCE, and further folders with it."""
    (out / "blobs/sha256").mkdir(parents=True)
    without = tuple(json.loads(os.environ.get("WITHOUT", "[]")))
    names = sorted(path.relative_to(source).as_posix() for path in walk(source))
    if absent := sorted(set(without) - set(names)):
        sys.exit(f"{absent[0]} is to stay out, and is not there")
    names = [name for name in names if not any(Path(origin(name)).is_relative_to(name_out) for name_out in without)]
    layers = [{inside(prefix, name): source / name for name in part} for part in split(source, names, wheels)]
    for folder, where in zip(map(Path, more[::2]), more[1::2], strict=True):
        found = {inside(where, path.relative_to(folder).as_posix()): path for path in walk(folder)}
        if double := sorted(name for name in found.keys() & layers[-1].keys() if not found[name].is_dir()):
            sys.exit(f"two folders hold {double[0]}")
        layers[-1] |= found
    (out / "layers.json").write_text(json.dumps([pack(members, out) for members in layers], sort_keys=True))


def inside(prefix: str, name: str) -> str:
    """Where a file lies in the image."""
    return f"{prefix}/{name}".lstrip("/")


def walk(folder: Path) -> Iterable[Path]:
    """Every file, link and folder below `folder`, itself left out."""
    for path in folder.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from walk(path)


def split(source: Path, names: list[str], wheels: str) -> list[list[str]]:
    """The names by layer: each large distribution alone (by name), before them all the rest."""
    if not wheels:
        return [names]
    owner = {file: dist for dist, files in json.loads(Path(wheels).read_text()).items() for file in files}
    sizes: dict[str, int] = {}
    of: dict[str, str] = {}
    for name in names:
        path = source / name
        if path.is_dir() and not path.is_symlink():
            continue
        of[name] = owner.get(origin(name), "")
        sizes[of[name]] = sizes.get(of[name], 0) + path.lstat().st_size
    large = sorted(dist for dist, size in sizes.items() if dist and size >= LARGE_BYTES)
    rest = [name for name in names if of.get(name) not in large and name in of]
    return [part for part in ([[n for n in names if of.get(n) == dist] for dist in large] + [rest]) if part]


def origin(name: str) -> str:
    """The source file that a byte code file was compiled from; any other name as it is."""
    folder, cache, file = name.rpartition("__pycache__/")
    return f"{folder}{file.split('.', 1)[0]}.py" if cache and file.endswith(".pyc") else name


def pack(members: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write one layer of these paths in the image; gives its entry of `layers.json`."""
    files: list[dict[str, Any]] = []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folders = {name for name, path in members.items() if path.is_dir() and not path.is_symlink()}
        for name in sorted({*folders_of(members), *members}):  # a folder sorts before what is in it
            path = members.get(name)
            if path is None or name in folders:
                archive.addfile(entry(name, tarfile.DIRTYPE, SHARED_FOLDERS.get(name, 0o755)))
            elif path.is_symlink():
                link = entry(name, tarfile.SYMTYPE, 0o777)
                link.linkname = str(path.readlink())
                refuse_store_path(link.linkname.encode(), name)
                archive.addfile(link)
                files.append({"path": name, "link": link.linkname})
            else:
                data = path.read_bytes()
                refuse_store_path(data, name)
                mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
                regular = entry(name, tarfile.REGTYPE, mode)
                regular.size = len(data)
                archive.addfile(regular, io.BytesIO(data))
                files.append({"path": name, "digest": digest(data), "size": len(data), "mode": mode})
    raw = buffer.getvalue()
    # Level and time are fixed; zlib is the base's.
    blob = gzip.compress(raw, 6, mtime=0)
    name = digest(blob)
    (out / "blobs/sha256" / name.removeprefix("sha256:")).write_bytes(blob)
    return {"digest": name, "size": len(blob), "diff_id": digest(raw), "files": files}


def folders_of(names: Iterable[str]) -> set[str]:
    """Every folder above the names."""
    return {str(parent) for name in names for parent in Path(name).parents} - {"."}


def entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """A tar header without anything that differs from one build to the next."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1
    info.uname = info.gname = "root"
    return info


def refuse_store_path(data: bytes, where: str) -> None:
    """Ends the build when a file names a path of the Nix store, which an image does not have."""
    if found := STORE_PATH.search(data):
        sys.exit(f"{where} names a path of the Nix store: {found[0].decode()}")


def digest(data: bytes) -> str:
    """`sha256:<64 hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
