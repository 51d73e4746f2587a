"""The images of the cluster's own pods: one program in an empty root file system, nothing pulled.

Takes built, statically linked programs; `compose` gives images as the OCI layouts that the
registry serves, once a build; `install` puts them into a cluster's registry and names them by
digest. The same program gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.formats.canonical import digest_bytes, dumps
from model_to_metal.registry.client import INDEX, MANIFEST

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REPOSITORY = "helix/system"
"""Every image of the cluster's own lies in a repository below this one."""
NAME = "registry.localhost:5000"
"""The registry, by the name that images have in every cluster. Verifiers speak plain HTTP to a `.localhost` only."""

_NOBODY = 65532
_CREATED = "1970-01-01T00:00:01Z"


@dataclass(frozen=True, slots=True)
class Spec:
    """An image that consists of one program."""

    name: str
    programs: Mapping[str, str]
    """Path in the image → name of a built program."""
    entrypoint: tuple[str, ...]
    folders: tuple[str, ...] = ("tmp",)
    """Empty folders that everybody may write to."""


SPECS = (
    Spec("pause", {"bin/pause": "probe"}, ("/bin/pause",), ()),
    Spec("probe", {"bin/probe": "probe"}, ("/bin/probe",)),
    Spec("coredns", {"bin/coredns": "coredns"}, ("/bin/coredns",), ()),
    Spec("argoexec", {"bin/argoexec": "argoexec"}, ("/bin/argoexec",)),
)
"""Every image of the cluster's own pods."""


def compose(programs: Path, target: Path) -> None:
    """Write every image, one layout each, in place of those that were there."""
    half = target.with_name(f".{target.name}")
    shutil.rmtree(half, ignore_errors=True)
    for spec in SPECS:
        _compose(spec, programs, half / spec.name)
    shutil.rmtree(target, ignore_errors=True)
    half.replace(target)


def install(composed: Path, registry: Path) -> dict[str, str]:
    """Put the images into a registry's folder; gives their names by digest. Blobs are shared, not copied."""
    found = {}
    for spec in SPECS:
        source, repository = composed / spec.name, f"{REPOSITORY}/{spec.name}"
        target = registry / repository
        shutil.copytree(source / "blobs", target / "blobs", copy_function=os.link, dirs_exist_ok=True)
        # The registry writes to these two.
        for name in ("index.json", "oci-layout"):
            shutil.copyfile(source / name, target / name)
        (manifest,) = json.loads((source / "index.json").read_bytes())["manifests"]
        found[spec.name] = f"{NAME}/{repository}@{manifest['digest']}"
    return found


def _compose(spec: Spec, programs: Path, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    archive = _archive({path: programs / name for path, name in spec.programs.items()}, spec.folders)
    layer = _put(blobs, gzip.compress(archive, compresslevel=1, mtime=0), LAYER)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": _CREATED,
        "config": {"Entrypoint": list(spec.entrypoint), "Env": ["PATH=/bin"], "User": f"{_NOBODY}:{_NOBODY}"},
        "rootfs": {"type": "layers", "diff_ids": [digest_bytes(archive)]},
    }
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _put(blobs, dumps(config), CONFIG), "layers": [layer]}
    manifest = _put(blobs, dumps(value), MANIFEST)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]}
    (folder / "index.json").write_bytes(dumps(index))
    (folder / "oci-layout").write_bytes(dumps({"imageLayoutVersion": "1.0.0"}))


def _archive(programs: Mapping[str, Path], folders: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        parents = {str(parent) for path in programs for parent in Path(path).parents if parent != Path()}
        for name in sorted({*folders, *parents}):
            archive.addfile(_entry(name, tarfile.DIRTYPE, 0o1777 if name in folders else 0o755))
        for name in sorted(programs):
            data = programs[name].read_bytes()
            entry = _entry(name, tarfile.REGTYPE, 0o755)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 1
    return entry


def _put(blobs: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = digest_bytes(data)
    path = blobs / digest.removeprefix("sha256:")
    path.write_bytes(data)
    path.chmod(0o444)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}
