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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.records.chain import ImageBuild, Record, Release
from helixserve.errors import NotReadyError
from helixserve.integrity import imports, prehash, promotion as promoted, read as reading
from helixserve.integrity.manifest import ImageFiles, read_list
from helixserve.model.contract import Contract
from helixserve.settings import BUNDLE_BYTES, Settings

_DELETED = " (deleted)"
"""What /proc/self/maps adds to the path of a file that is no more (proc(5))."""
_NO_FILES = ("/memfd:", "/dev/", "/SYSV")
"""Memory that never was a file, which the kernel calls deleted too."""


@dataclass(frozen=True, slots=True)
class VerifiedImage:
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
    files: ImageFiles
    """The image's files, as the release lists them."""
    promotion: promoted.VerifiedHere | None = None
    """Who put the release here; None outside any environment."""


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


def load(settings: Settings, at: datetime) -> VerifiedImage:
    """Read and check everything that a server needs. Raises NotReadyError or ContractError naming what fails."""
    looked = prehash.result()  # taken whatever follows, so that its process is gone
    bundle = _read(settings.release, "HELIX_RELEASE", "the signed release")
    manifest = read_list(settings.files)
    try:
        trust = Trust.parse(_read(settings.trust, "HELIX_TRUST", "the trust root"))
    except LineageError as error:
        raise NotReadyError(f"cannot read the trust root: {error}", where=str(settings.trust)) from error
    verified, served = verify(bundle, trust, manifest, settings.image_digest, at)
    promotion = promoted.load(settings, trust, verified, at)
    release = verified.release
    files = ImageFiles(manifest, settings.root, looked.by(digest_bytes(manifest)) if looked else None)
    contract = Contract.parse(files.read(settings.model / "model.toml").decode())
    if contract.name != release.parameters["model"]:
        raise NotReadyError(f"the release is of {release.parameters['model']!r}", where="model.toml name")
    artifacts = {name: files.read(settings.artifacts / name) for name in contract.artifacts}
    for name, data in artifacts.items():
        check_artifact(served, name, digest_bytes(data))
    files.check_tree(settings.home)  # of what was looked at, whether it is still what it was then
    return VerifiedImage(release, release.parameters["image"], bundle, contract, artifacts, trust, files, promotion)


def check_artifact(served: Record, name: str, digest: str) -> None:
    """The artifact is the one that the release's engine holds. Raises NotReadyError."""
    given = {output.name: output.digest for output in served.outputs}
    if given.get(name) != digest:
        raise NotReadyError(f"the release's engine has {given.get(name, 'no such file')}, not {digest}", where=name)


def check_loaded(settings: Settings, loaded: Iterable[Path] | None = None, files: ImageFiles | None = None) -> None:
    """Every file of the root that this process has loaded, outside its home too, is the release's.

    What was imported under `imports.watch` is judged by what was read then. Raises NotReadyError.

    Args:
        loaded: the modules and mapped files of this process when missing.
        files: read again when missing. What they have checked already, and nobody touched since, is not read again.
    """
    files = files or ImageFiles(read_list(settings.files), settings.root)
    real = RealPaths()
    own, root = str(settings.files), f"{settings.root.as_posix().rstrip('/')}/"
    for path in sorted(set(loaded_files(real) if loaded is None else map(str, loaded))):
        if not path.startswith(root) or path == own:
            continue
        if os.path.isfile(path):
            files.check(path)
        elif path.endswith(_DELETED) and not path.startswith(_NO_FILES):
            raise NotReadyError("this process has loaded a file that was deleted", where=path.removesuffix(_DELETED))
    for name, digests in sorted(imports.read_so_far().items()):
        path = real(name)
        # Found in the image, it must lie in the image: a link that leads out of it escapes nobody's eye.
        if path.startswith(root) or name.startswith(root):
            for digest in digests:
                files.compare(path, digest)


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


def _read(path: Path, where: str, what: str) -> bytes:
    return reading.read(path, where=f"{where} = {path}", what=what, limit=BUNDLE_BYTES, follow=True)
