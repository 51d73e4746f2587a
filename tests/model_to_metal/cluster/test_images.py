"""The images of the cluster's own pods: the same program gives the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from helix_lineage.formats.canonical import digest_bytes
from model_to_metal.cluster import images


def composed(folder: Path) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in {name for spec in images.SPECS for name in spec.programs.values()}:
        (programs / name).write_bytes(b"\x7fELF " + name.encode())
    images.compose(programs, folder / "images")
    return images.install(folder / "images", folder / "registry")


def test_the_same_programs_are_the_same_images_anywhere(tmp_path: Path) -> None:
    assert composed(tmp_path / "a") == composed(tmp_path / "b")


def test_an_image_is_whole_and_holds_its_program_only(tmp_path: Path) -> None:
    name = composed(tmp_path)["probe"]
    folder = tmp_path / "registry" / "helix/system/probe"
    manifest = json.loads((folder / "blobs/sha256" / name.rpartition(":")[2]).read_bytes())
    for part in (manifest["config"], *manifest["layers"]):
        data = (folder / "blobs/sha256" / part["digest"].removeprefix("sha256:")).read_bytes()
        assert (digest_bytes(data), len(data)) == (part["digest"], part["size"])
    (layer,) = manifest["layers"]
    archive = gzip.decompress((folder / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        assert [(file.name, oct(file.mode)) for file in files] == [
            ("bin", "0o755"), ("tmp", "0o1777"), ("bin/probe", "0o755")
        ]  # fmt: skip
