"""May this process serve? Its release must be signed and complete, and its files must be the release's.

`verify` takes bytes and decides; `load` reads. A server can't measure its own image digest: it
hashes the files that it loads against files.json, whose digest the release names, and records
the image digest as the scheduler claims it. A file that is loaded as bytes is hashed from those
very bytes, and so is a module that was imported under `imports.watch`: swapping a file between
check and use gains nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from helix_lineage.canonical import digest_bytes, loads
from helix_lineage.errors import LineageError
from helix_lineage.records import ImageBuild, Record, Release
from helix_lineage.release import VerifiedRelease, verify_release
from helix_lineage.trust import Trust
from helixserve import files as reading
from helixserve import imports, promoted
from helixserve.contract import Contract
from helixserve.errors import NotReadyError
from helixserve.settings import BUNDLE_BYTES, Settings

_LARGE_BYTES = 1 << 18
"""Of a file that takes longer to hash than to open."""

_SETTLED_NS = 2_000_000_000
"""A file that was changed within a tick of the file system's clock may change once more without showing it."""

MANIFEST_BYTES = 256 * 1024 * 1024
"""Most bytes of files.json that are read at all: about a million files."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a server that may serve knows about itself."""

    release: Release
    image: str
    """Manifest digest, claimed by the scheduler and named by the release."""
    bundle: bytes
    """The signed release, as read."""
    contract: Contract
    artifacts: Mapping[str, bytes]
    trust: Trust
    """Whose signatures count."""
    files: Files
    """The image's files, as the release lists them."""
    promotion: promoted.Promoted | None = None
    """Who put the release here; None outside any environment."""


class Files:
    """The files of an image, as files.json lists them.

    Args:
        manifest: the bytes of files.json.
        root: the folder that its paths are relative to.
    """

    def __init__(self, manifest: bytes, root: Path) -> None:
        self._root = root
        self._entries = _entries(manifest)
        self._seen: dict[str, tuple[int, ...]] = {}
        """Name → what the file system said of the file before it was hashed and found unchanged."""

    def read(self, path: Path) -> bytes:
        """The bytes of a listed file, hashed as they were read. Raises NotReadyError naming the file."""
        return self._read(self._name(path))

    def check_tree(self, folder: Path) -> None:
        """Every file below `folder` is listed and unchanged, and none is missing. Raises NotReadyError."""
        # An image has about ten thousand files and a server waits for this: no path object a file.
        prefix, above = folder.relative_to(self._root).as_posix() + "/", len(self._path(""))
        present = {path[above:] for path in _walk(folder)}
        listed = {name for name in self._entries if name.startswith(prefix)}
        own = f"{prefix}files.json"  # which can't list itself
        for name in sorted(present - listed - {own}):
            raise NotReadyError("the release does not list this file", where=name)
        for name in sorted(listed - present):
            raise NotReadyError("a file of the release is missing", where=name)
        large = {name for name in listed if self._entries[name].get("size", 0) >= _LARGE_BYTES}
        with ThreadPoolExecutor(1, thread_name_prefix="helix-check") as beside:
            rest = beside.submit(self._check_each, large)  # which lets go of the interpreter
            self._check_each(listed - large)
            rest.result()

    def check(self, path: Path) -> None:
        """The file is listed and unchanged. Raises NotReadyError naming it."""
        self._check(self._name(path))

    def compare(self, path: Path, digest: str) -> None:
        """Bytes of that digest are what the release lists at this path. Raises NotReadyError naming it."""
        self._compare(self._name(path), digest)

    def _check_each(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            self._check(name)

    def _check(self, name: str) -> None:
        entry, path = self._entries.get(name), self._path(name)
        if entry is None or "link" not in entry:
            before = _identity(path)
            if before is None or self._seen.get(name) != before:
                self._read(name)
                if before is not None:
                    self._seen[name] = before
        elif not os.path.islink(path) or os.readlink(path) != entry["link"]:
            raise NotReadyError("a link is not the one that the release lists", where=name)

    def _read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None or "digest" not in entry:
            raise NotReadyError("the release does not list this file", where=name)
        path = self._path(name)
        data = reading.read(path, where=name, what="a file of the image", limit=entry["size"], exact=True)
        self._compare(name, digest_bytes(data))
        return data

    def _compare(self, name: str, digest: str) -> None:
        entry = self._entries.get(name)
        if entry is None or "digest" not in entry:
            raise NotReadyError("the release does not list this file", where=name)
        if entry["digest"] != digest:
            raise NotReadyError(f"the file is {digest}, but the release lists {entry['digest']}", where=name)

    def _path(self, name: str) -> str:
        return f"{self._root.as_posix().rstrip('/')}/{name}"

    def _name(self, path: Path) -> str:
        """The path as files.json has it. A path that could climb out has no name there."""
        if ".." in path.parts or not path.is_relative_to(self._root):
            raise NotReadyError("this path leads out of the image", where=str(path))
        return path.relative_to(self._root).as_posix()


def verify(
    bundle: bytes, trust: Trust, manifest: bytes, image: str | None, at: datetime
) -> tuple[VerifiedRelease, Record]:
    """Check the signed release against the trust root, the claimed image and files.json.

    Gives the release and the record of the files that it serves: its engine, or in an old one its export.
    Raises NotReadyError naming the field.
    """
    if image is None:
        raise NotReadyError("the scheduler claims no image digest", where="HELIX_IMAGE_DIGEST")
    try:
        verified = verify_release(bundle, trust, image=image, at=at)
    except LineageError as error:
        raise NotReadyError(f"the release does not hold: {error.what}", where=error.where or "release") from error
    build = verified.parent("image")
    if not isinstance(build, ImageBuild):
        raise NotReadyError("the release's parents are of the wrong type", where="release.parents")
    named = build.parameters["filesystem"]
    if digest_bytes(manifest) != named:
        raise NotReadyError(
            f"files.json is {digest_bytes(manifest)}, but the release names {named}", where="files.json"
        )
    return verified, verified.parent("image", "model")


def load(settings: Settings, at: datetime) -> Verified:
    """Read and check everything that a server needs. Raises NotReadyError or ContractError naming what fails."""
    bundle = _read(settings.release, "HELIX_RELEASE", "the signed release")
    manifest = _manifest(settings)
    try:
        trust = Trust.parse(_read(settings.trust, "HELIX_TRUST", "the trust root"))
    except LineageError as error:
        raise NotReadyError(f"cannot read the trust root: {error}", where=str(settings.trust)) from error
    verified, served = verify(bundle, trust, manifest, settings.image_digest, at)
    promotion = promoted.load(settings, trust, verified, at)
    release = verified.release
    files = Files(manifest, settings.root)
    contract = Contract.parse(files.read(settings.model / "model.toml").decode())
    if contract.name != release.parameters["model"]:
        raise NotReadyError(f"the release is of {release.parameters['model']!r}", where="model.toml name")
    artifacts = {name: files.read(settings.artifacts / name) for name in contract.artifacts}
    for name, data in artifacts.items():
        check_artifact(served, name, digest_bytes(data))
    files.check_tree(settings.home)
    return Verified(release, release.parameters["image"], bundle, contract, artifacts, trust, files, promotion)


def check_artifact(served: Record, name: str, digest: str) -> None:
    """The artifact is the one that the release's engine holds. Raises NotReadyError."""
    given = {output.name: output.digest for output in served.outputs}
    if given.get(name) != digest:
        raise NotReadyError(f"the release's engine has {given.get(name, 'no such file')}, not {digest}", where=name)


def check_loaded(settings: Settings, loaded: Iterable[Path] | None = None, files: Files | None = None) -> None:
    """Every file of the root that this process has loaded, outside its home too, is the release's.

    What was imported under `imports.watch` is judged by what was read then. Raises NotReadyError.

    Args:
        loaded: the modules and mapped files of this process when missing.
        files: read again when missing. What they have checked already, and nobody touched since, is not read again.
    """
    files = files or Files(_manifest(settings), settings.root)
    real = RealPaths()
    own, root = str(settings.files), f"{settings.root.as_posix().rstrip('/')}/"
    for path in sorted(set(loaded_files(real) if loaded is None else map(str, loaded))):
        if path.startswith(root) and path != own and os.path.isfile(path):
            files.check(Path(path))
    for name, digests in sorted(imports.read_so_far().items()):
        path = real(name)
        # Found in the image, it must lie in the image: a link that leads out of it escapes nobody's eye.
        if path.startswith(root) or name.startswith(root):
            for digest in digests:
                files.compare(Path(path), digest)


def loaded_files(real: RealPaths) -> Iterator[str]:
    """Python modules, their compiled forms, and what is mapped executable or from a library, as real paths."""
    for module in list(sys.modules.values()):
        for name in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
            if isinstance(name, str) and os.path.isfile(name):
                yield real(name)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/") and "x" in fields[1]:  # proc(5): six columns
            yield fields[5]


class RealPaths:
    """Paths without links; each folder is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """The real path."""
        folder, base = os.path.split(name)
        if (found := self._folders.get(folder)) is None:
            found = self._folders[folder] = os.path.realpath(folder)
        path = f"{found.rstrip('/')}/{base}"
        return os.path.realpath(path) if os.path.islink(path) else path


def _identity(path: str) -> tuple[int, ...] | None:
    """What changes whenever a file is written or replaced; None when nothing can be said."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if time.time_ns() - found.st_ctime_ns < _SETTLED_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _entries(manifest: bytes) -> dict[str, dict[str, Any]]:
    try:
        document = loads(manifest)
        if document["version"] != 1:
            raise NotReadyError(f"files.json has version {document['version']!r}, not 1", where="files.json")
        return {_listed(entry): entry for entry in document["files"]}
    except (LineageError, KeyError, TypeError) as error:
        raise NotReadyError(f"files.json is malformed: {error}", where="files.json") from error


def _listed(entry: Mapping[str, Any]) -> str:
    """The path of a line of files.json."""
    name = entry["path"]
    if not isinstance(name, str) or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise NotReadyError(f"files.json names {name!r}, which is no path inside the image", where="files.json")
    if "link" not in entry and (type(entry["size"]) is not int or entry["size"] < 0):
        raise NotReadyError(f"files.json gives {name} the size {entry['size']!r}", where="files.json")
    return name


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        yield from (f"{parent}/{name}" for name in names)
        # A link to a folder is a link, not a folder.
        yield from (path for name in folders if os.path.islink(path := f"{parent}/{name}"))


def _manifest(settings: Settings) -> bytes:
    what = "the list of the image's files"
    return reading.read(settings.files, where="files.json", what=what, limit=MANIFEST_BYTES)


def _read(path: Path, where: str, what: str) -> bytes:
    return reading.read(path, where=f"{where} = {path}", what=what, limit=BUNDLE_BYTES, follow=True)
