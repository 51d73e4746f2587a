"""The content-addressed store: blobs and records by digest, observations beside them (FORMAT.md 4).

>>> import tempfile
>>> store = RecordStore(Path(tempfile.mkdtemp()))
>>> store.read_bytes(store.put_bytes(b"x"))
b'x'
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.errors import CanonicalError, StoreError, explaining, reason
from helix_lineage.formats import untrusted
from helix_lineage.formats.canonical import Json, check_digest, digest_bytes, dumps
from helix_lineage.records.chain import Artifact, Record, parse

_CHUNK = 2**20
_MAX_BLOB_BYTES = 2**36
_MAX_RECORD_BYTES = untrusted.MAX_BUNDLE_BYTES
_MAX_OBSERVATIONS_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class RecordStore:
    """A store under one folder. Safe for several processes at once."""

    root: Path

    def put_bytes(self, data: bytes) -> str:
        """Keep `data`; gives its digest. Raises StoreError."""
        digest = digest_bytes(data)
        if not self.has(digest):
            self._put([data])
        return digest

    def put_file(self, path: Path, name: str) -> Artifact:
        """Keep a copy of the file; gives the artifact `name`. Raises StoreError."""
        try:
            with untrusted.opened(path, limit=_MAX_BLOB_BYTES, follow=True) as (fd, _):
                digest, size = self._put(iter(lambda: os.read(fd, _CHUNK), b""))
        except OSError as error:
            raise StoreError(f"cannot read the file: {reason(error)}", where=str(path)) from error
        return Artifact(name, digest, size)

    def has(self, digest: str) -> bool:
        """Is there a blob of that digest?"""
        path = self._blob(digest)
        return path.is_file() and not path.is_symlink()

    def path(self, digest: str) -> Path:
        """Where the blob lies; its bytes are not checked here. Raises StoreError when absent."""
        if not self.has(digest):
            raise StoreError("the store does not hold this", where=digest)
        return self._blob(digest)

    def read_bytes(self, digest: str, limit: int = _MAX_BLOB_BYTES) -> bytes:
        """The blob, compared with its digest. Raises StoreError."""
        with explaining(StoreError, "cannot read the store", where=digest):
            data = untrusted.read(self.path(digest), limit=limit)
        if digest_bytes(data) != digest:
            raise StoreError("the stored bytes do not match their digest", where=digest)
        return data

    def put_record(self, record: Record) -> str:
        """Keep a record; gives its digest."""
        return self.put_bytes(record.to_bytes())

    def get_record(self, digest: str) -> Record:
        """Read a record. Raises StoreError when absent or changed, RecordError when it is not a record."""
        return parse(self.read_bytes(digest, _MAX_RECORD_BYTES))

    def observe(self, digest: str, observation: Mapping[str, Json]) -> None:
        """Append what was seen of a record or blob: commit, time, host, duration. Raises StoreError."""
        # Canonical JSON has no raw line break, so an observation is one line.
        line = dumps(observation) + b"\n"
        path = self._observations(digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(path, flags, 0o644)
            try:
                untrusted.check_regular(fd, path)
                fcntl.flock(fd, fcntl.LOCK_EX)
                _end_torn_line(fd)
                os.write(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreError(f"cannot write an observation: {reason(error)}", where=digest) from error

    def observations(self, digest: str) -> list[dict[str, Any]]:
        """What was seen of a record or blob, in order; a line that a crash tore is left out."""
        try:
            lines = untrusted.read(self._observations(digest), limit=_MAX_OBSERVATIONS_BYTES).split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read observations: {error.strerror}", where=digest) from error
        return [value for line in lines if (value := _parse_line(line)) is not None]

    def fsck(self) -> list[str]:
        """Hash everything again; gives a sentence for each problem."""
        problems = []
        folder = self.root / "blobs" / "sha256"
        for path in sorted(item for item in folder.rglob("*") if item.is_symlink() or not item.is_dir()):
            digest = "sha256:" + path.parent.name + path.name
            try:
                found = untrusted.file_digest(path)
            except OSError as error:
                problems.append(f"blob {digest}: {error.strerror}")
                continue
            if found != digest:
                problems.append(f"blob {digest}: its bytes hash to {found}")
        for path in sorted((self.root / "observations").glob("*.jsonl")):
            problems += _unreadable(path)
        return problems

    def _blob(self, digest: str) -> Path:
        name = _hex(digest)
        return self.root / "blobs" / "sha256" / name[:2] / name[2:]

    def _observations(self, digest: str) -> Path:
        return self.root / "observations" / f"{_hex(digest)}.jsonl"

    def _put(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Write a blob under a temporary name, sync it, and give it the name of its digest."""
        folder = self.root / "tmp"
        hashed, size = hashlib.sha256(), 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    for chunk in chunks:
                        hashed.update(chunk)
                        size += file.write(chunk)
                    file.flush()
                    os.fchmod(file.fileno(), 0o444)
                    os.fsync(file.fileno())
                path = self._blob("sha256:" + hashed.hexdigest())
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write the store: {reason(error)}", where=str(self.root)) from error
        return "sha256:" + hashed.hexdigest(), size


def _hex(digest: str) -> str:
    try:
        return check_digest(digest).removeprefix("sha256:")
    except CanonicalError as error:
        raise StoreError(str(error)) from error


def _end_torn_line(fd: int) -> None:
    """End a line that a crash left unfinished, so that the next one can be read."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")


def _unreadable(path: Path) -> list[str]:
    """What of a file of observations cannot be read."""
    try:
        lines = untrusted.read(path, limit=_MAX_OBSERVATIONS_BYTES).split(b"\n")
    except OSError as error:
        return [f"observations of sha256:{path.stem}: {error.strerror}"]
    torn = sum(1 for line in lines if line and _parse_line(line) is None)
    return [f"observations of sha256:{path.stem}: {torn} unreadable lines"] if torn else []


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        value = untrusted.parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
