"""Images by digest: pulled from a registry, every blob hashed, unpacked once, and compared with their list of files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage import process
from helix_lineage.errors import CanonicalError, ReplayError, explaining, reason
from helix_lineage.formats import untrusted
from helix_lineage.formats.canonical import check_digest, digest_bytes, loads
from helix_lineage.replay.verdict import OutputDifference

FILES = "opt/helix/files.json"
ARTIFACTS = "opt/helix/artifacts/"
_MAX_JSON_BYTES = 2**28
"""Of a manifest, a configuration, or the list of an image's files."""
_LOOPBACK = ("127.", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class UnpackedImage:
    """An image's files on this machine."""

    folder: Path
    """Holds `rootfs/`, `manifest.json` and `config.json`."""
    settings: Mapping[str, Any]
    """`config` of the image's configuration: Env, WorkingDir."""

    @property
    def rootfs(self) -> Path:
        """The root file system."""
        return self.folder / "rootfs"

    @property
    def env(self) -> dict[str, str]:
        """The environment that the image asks for."""
        return dict(item.partition("=")[::2] for item in self.settings.get("Env", ()))


def obtain(digest: str, repository: str, registry: str, images: Path) -> UnpackedImage:
    """The unpacked image; pulled when it is not there yet. Raises ReplayError.

    Args:
        registry: `HOST:PORT`; plain HTTP on the loopback interface.
        images: folder of unpacked images, one folder a digest.
    """
    folder = images / check_digest(digest).removeprefix("sha256:")
    if not folder.is_dir():
        with explaining(ReplayError, "there is no place for images", where=str(images)):
            images.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=images, prefix=".pull-") as work:
            _pull(digest, f"{registry}/{repository}@{digest}", registry, Path(work))
            try:
                (Path(work) / "image").rename(folder)
            except OSError as error:
                if not folder.is_dir():  # else another process was faster
                    raise ReplayError(f"cannot keep the image: {reason(error)}", where=str(folder)) from error
    return _open(folder, digest)


def check_files(image: UnpackedImage, filesystem: str) -> list[OutputDifference]:
    """Compare every file with `files.json`, and that with the release. Gives what differs."""
    data = _read(image.rootfs / FILES)
    if data is None or digest_bytes(data) != filesystem:
        found = "missing" if data is None else digest_bytes(data)
        return [OutputDifference("file", f"{FILES} is {found}, but the release names {filesystem}")]
    try:
        document = loads(data)
        listed = {item["path"]: item for item in document["files"]}
    except (CanonicalError, KeyError, TypeError) as error:
        return [OutputDifference("file", f"{FILES} is malformed: {error}")]
    problems = [text for path, item in listed.items() if (text := _check_file(image.rootfs, path, item))]
    extra = sorted(set(_walk(image.rootfs)) - set(listed) - {FILES})
    problems += [(path, "is not in the image") for path in extra]
    return [
        OutputDifference("weights" if path.startswith(ARTIFACTS) else "file", f"{path} {what}")
        for path, what in problems
    ]


def _pull(digest: str, reference: str, registry: str, work: Path) -> None:
    """Copy the image to an OCI layout, hash every blob, unpack it to `work/image`."""
    process.require("skopeo", "apt-get install skopeo")
    process.require("umoci", "apt-get install umoci")
    layout, image = work / "layout", work / "image"
    secure = "false" if registry.startswith(_LOOPBACK) else "true"
    # We trust no tag and no policy file: the digest is what the release signs, and it is checked below.
    try:
        process.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", f"--src-tls-verify={secure}",
             f"docker://{reference}", f"oci:{layout}:image"]
        )  # fmt: skip
    except ReplayError as error:
        what = f"cannot pull the image: {process.last_words(error.what)}"
        raise ReplayError(what, where=reference, fix="helix-lineage replay ID --registry HOST:PORT") from error
    manifest, config = check_layout(layout, digest)
    image.mkdir()
    (image / "manifest.json").write_bytes(manifest)
    (image / "config.json").write_bytes(config)
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    process.run(["umoci", "raw", "unpack", *rootless, "--image", f"{layout}:image", image / "rootfs"])


def check_layout(layout: Path, digest: str) -> tuple[bytes, bytes]:
    """Hash manifest, configuration and layers; gives the first two. Raises ReplayError."""
    try:
        index = untrusted.read(layout / "index.json", limit=_MAX_JSON_BYTES)
        names = [item["digest"] for item in untrusted.parse_json(index)["manifests"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReplayError(f"the image's layout has no index: {error!r}", where=str(layout)) from error
    if names != [digest]:
        raise ReplayError(f"the registry gave {names} for {digest}", where=str(layout))
    manifest = _blob(layout, digest)
    try:
        value = untrusted.parse_json(manifest)
        layers, config = [layer["digest"] for layer in value["layers"]], value["config"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise ReplayError(f"this is not an image manifest: {error!r}", where=digest) from error
    for layer in layers:
        _blob(layout, layer, keep=False)
    return manifest, _blob(layout, config)


def _blob(layout: Path, digest: str, *, keep: bool = True) -> bytes:
    """Hash a blob of the layout; gives its bytes. Raises ReplayError."""
    try:
        path = layout / "blobs" / "sha256" / check_digest(digest).removeprefix("sha256:")
    except CanonicalError as error:
        raise ReplayError(f"the image's manifest: {error}", where=str(layout)) from error
    try:
        found = untrusted.file_digest(path)
        data = untrusted.read(path, limit=_MAX_JSON_BYTES) if keep else b""
    except OSError as error:
        raise ReplayError(f"the registry gave no blob {digest}: {error.strerror}", where=str(path)) from error
    if found != digest or (keep and digest_bytes(data) != digest):
        raise ReplayError(f"a blob of the image hashes to {found}", where=digest)
    return data


def _open(folder: Path, digest: str) -> UnpackedImage:
    """Read an unpacked image; manifest and configuration must still be the digest's."""
    manifest, config = _read(folder / "manifest.json"), _read(folder / "config.json")
    whole = manifest is not None and config is not None
    if not whole or digest_bytes(manifest or b"") != digest:
        raise ReplayError("the unpacked image is not the one of its digest", where=str(folder), fix=f"rm -r {folder}")
    try:
        named = untrusted.parse_json(manifest or b"{}")["config"]["digest"]
        if digest_bytes(config or b"") != named:
            what = "the unpacked image's configuration was changed"
            raise ReplayError(what, where=str(folder), fix=f"rm -r {folder}")
        return UnpackedImage(folder, untrusted.parse_json(config or b"{}").get("config", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReplayError(f"this is not an image's manifest and configuration: {error!r}", where=str(folder)) from error


def _check_file(rootfs: Path, path: str, item: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a listed file, or None."""
    place = rootfs / path
    try:
        status = place.lstat()
        if "link" in item:
            same = stat.S_ISLNK(status.st_mode) and str(place.readlink()) == item["link"]
            return None if same else (path, f"is not a link to {item['link']}")
        if not stat.S_ISREG(status.st_mode):
            return path, "is not a regular file"
        if stat.S_IMODE(status.st_mode) != item["mode"]:
            return path, f"has mode {stat.S_IMODE(status.st_mode):o}, but the release lists {item['mode']:o}"
        digest = untrusted.file_digest(place)
    except OSError as error:
        return path, f"cannot be read: {error.strerror}"
    if digest != item["digest"]:
        return path, f"is {digest}, but the release lists {item['digest']}"
    return None


def _walk(rootfs: Path) -> Iterator[str]:
    """Every file and link below `rootfs`, as a relative path."""
    for parent, folders, names in os.walk(rootfs):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            yield Path(parent, name).relative_to(rootfs).as_posix()


def _read(path: Path) -> bytes | None:
    try:
        return untrusted.read(path, limit=_MAX_JSON_BYTES)
    except OSError:
        return None
