"""Build: an OCI layout that Nix made → `ImageBuild`.

Takes the layout's folder; gives the manifest's digest and the digest of the list of the
image's files, after re-hashing every blob. The image must carry the compiled engine's files.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from helix_lineage.formats.canonical import Json, digest_bytes, file_digest
from helix_lineage.records.chain import ImageBuild
from model_to_metal.errors import ImageError
from model_to_metal.hermetic.layout import blob_path, check_blob, manifest_digest, read_blob
from model_to_metal.stages.interface import Runs, StageSpec, StageTask

SPEC = StageSpec(
    name="build",
    record=ImageBuild,
    runs=Runs.HOST,
    environment="serve",
    source=("image",),
    shown=("image",),
    gives={"layout": "image"},
)

FILES = "opt/helix/files.json"
ARTIFACTS = "opt/helix/artifacts/"


def make(task: StageTask) -> dict[str, Json]:
    """Check the layout; writes the image's `manifest.json` and `files.json`. Raises ImageError."""
    layout = task.input("layout")
    image = manifest_digest(layout)
    manifest = read_blob(layout, image)
    config = json.loads(manifest)
    for blob in (config["config"], *config["layers"]):
        check_blob(layout, blob["digest"])
    files = _files(layout, config["layers"][-1]["digest"])
    _check_artifacts(json.loads(files), task.input("model"))
    (task.output / "manifest.json").write_bytes(manifest)
    (task.output / "files.json").write_bytes(files)
    return {"image": image, "filesystem": digest_bytes(files)}


def _files(layout: Path, layer: str) -> bytes:
    with tarfile.open(blob_path(layout, layer)) as tar:
        for member in tar:
            if member.name.removeprefix("./").lstrip("/") == FILES and (file := tar.extractfile(member)):
                return file.read()
    raise ImageError(f"the image's last layer does not hold /{FILES}", where=str(layout))


def _check_artifacts(files: Any, model: Path) -> None:
    """The image must hold exactly the engine's files: Nix and the record chain may not part ways."""
    inside = {
        row["path"].removeprefix(ARTIFACTS): row.get("digest")
        for row in files["files"]
        if row["path"].startswith(ARTIFACTS)
    }
    compiled = {path.relative_to(model).as_posix(): file_digest(path) for path in model.rglob("*") if path.is_file()}
    for name in sorted(set(inside) | set(compiled)):
        if inside.get(name) != compiled.get(name):
            raise ImageError("the image's artifacts are not those that were compiled", where=ARTIFACTS + name)
