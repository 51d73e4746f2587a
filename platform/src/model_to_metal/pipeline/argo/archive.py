"""Folders as archives that have the same bytes whenever they are made."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from model_to_metal.errors import ImageError

Entries = Mapping[str, Path | bytes | str]
"""Name in an archive → the file or folder that it is made from, its bytes, or what it links to."""
_LEVEL = 1
"""Made once and read by few: time matters more than room."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive that was written."""

    digest: str
    """Of its compressed bytes."""
    size: int
    """Compressed, in bytes."""
    diff_id: str
    """Digest of the bytes uncompressed, as an image's configuration names a layer."""


def members(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Every file, link and folder below `folder`, by its name in an archive; folders before what is in them."""
    for path in sorted(folder.iterdir()):
        name = f"{prefix}/{path.name}".lstrip("/")
        yield name, path
        if path.is_dir() and not path.is_symlink():
            yield from members(path, name)


def write(entries: Entries, target: Path, *, folders: Mapping[str, int] | None = None) -> Packed:
    """Write a compressed archive of files by their name in it; folders above them are added.

    `folders` are further ones with a mode of their own.
    """
    with target.open("wb") as file:
        outer = _Hashing(file)
        with gzip.GzipFile(filename="", fileobj=outer, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped:
            inner = _Hashing(zipped)
            with tarfile.open(fileobj=inner, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                _add(archive, entries, folders or {})
    return Packed(f"sha256:{outer.hash.hexdigest()}", outer.size, f"sha256:{inner.hash.hexdigest()}")


def data(entries: Entries) -> bytes:
    """A small archive, in memory and uncompressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, entries, {})
    return buffer.getvalue()


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive of ours: files, links and folders, all dated as in a store.

    Raises ImageError for anything else, and for a name outside `folder`. (The Python in images is older than
    `extractall(filter=…)`.)
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as opened:
        for member in opened:
            parts = PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts:
                raise ImageError("an archive names a file outside its folder", where=member.name)
            _unpack(opened, member, folder / member.name)


def _unpack(opened: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.isreg() and (source := opened.extractfile(member)):
        with target.open("xb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(member.mode & 0o777)
    else:
        raise ImageError("an archive holds files, links and folders only", where=member.name)
    os.utime(target, (1, 1), follow_symlinks=False)


def _add(archive: tarfile.TarFile, entries: Entries, folders: Mapping[str, int]) -> None:
    modes = dict.fromkeys(_above([*entries, *folders]), 0o755) | dict(folders)
    for name in sorted({*modes, *entries}):
        source = entries.get(name)
        if source is None or (isinstance(source, Path) and source.is_dir() and not source.is_symlink()):
            archive.addfile(_entry(name, tarfile.DIRTYPE, modes.get(name, 0o755)))
        elif isinstance(source, bytes):
            info = _entry(name, tarfile.REGTYPE, 0o644)
            info.size = len(source)
            archive.addfile(info, io.BytesIO(source))
        elif isinstance(source, str) or source.is_symlink():
            info = _entry(name, tarfile.SYMTYPE, 0o777)
            info.linkname = source if isinstance(source, str) else str(source.readlink())
            archive.addfile(info)
        else:
            status = source.stat()
            info = _entry(name, tarfile.REGTYPE, 0o755 if status.st_mode & 0o111 else 0o644)
            info.size = status.st_size
            with source.open("rb") as file:
                archive.addfile(info, file)


def _above(names: Iterable[str]) -> set[str]:
    return {str(parent) for name in names for parent in Path(name).parents} - {"."}


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1
    info.uname = info.gname = "root"
    return info


class _Sink(Protocol):
    """What bytes can be written to."""

    def write(self, chunk: bytes, /) -> object: ...


class _Hashing(io.RawIOBase):
    """Passes bytes on, and hashes and counts them."""

    def __init__(self, file: _Sink) -> None:
        super().__init__()
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, chunk: Any) -> int:
        self.hash.update(chunk)
        self.size += len(chunk)
        self._file.write(chunk)
        return len(chunk)
