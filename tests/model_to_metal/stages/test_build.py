from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from helix_lineage.formats.canonical import digest_bytes, dumps
from model_to_metal.errors import ImageError
from model_to_metal.hermetic.layout import manifest_digest
from model_to_metal.stages import build
from model_to_metal.stages.interface import StageResult, StageSettings, StageTask, record as record_of
from tests.model_to_metal.conftest import write_layout

FACTOR = b"2"


def listing(artifacts: Mapping[str, bytes]) -> bytes:
    rows = [
        {"path": f"opt/helix/artifacts/{name}", "digest": digest_bytes(data), "size": len(data), "mode": 0o644}
        for name, data in artifacts.items()
    ]
    return dumps({"version": 1, "files": [*rows, {"path": "usr/bin/python3.11", "link": "python"}]})


@pytest.fixture
def task(tmp_path: Path) -> StageTask:
    for name in ("output", "layout", "model"):
        (tmp_path / name).mkdir()
    write_layout(tmp_path / "layout", {"opt/helix/files.json": listing({"factor.txt": FACTOR})})
    (tmp_path / "model" / "factor.txt").write_bytes(FACTOR)
    inputs = {"layout": tmp_path / "layout", "model": tmp_path / "model"}
    return StageTask(model=tmp_path, output=tmp_path / "output", inputs=inputs)


def test_the_record_names_the_manifest_and_the_list_of_files(task: StageTask) -> None:
    found = build.make(task)
    manifest = (task.output / "manifest.json").read_bytes()
    assert found["image"] == digest_bytes(manifest) == manifest_digest(task.input("layout"))
    assert found["filesystem"] == digest_bytes(listing({"factor.txt": FACTOR}))
    parameters = {"model": "toy", "source": "sha256:" + "1" * 64, "environment": "sha256:" + "2" * 64}
    with pytest.raises(Exception, match="parents missing"):
        record_of(build.SPEC, StageResult(plan=StageSettings(parameters), found=found))


@pytest.mark.parametrize(
    ("name", "said"),
    [("factor.txt", "not those that were compiled"), ("more.txt", r"more\.txt")],
    ids=["other", "more"],
)
def test_an_artifact_that_was_not_compiled_is_refused(task: StageTask, name: str, said: str) -> None:
    (task.input("model") / name).write_bytes(b"3")
    with pytest.raises(ImageError, match=said):
        build.make(task)


def test_a_changed_blob_is_refused(task: StageTask) -> None:
    for blob in sorted((task.input("layout") / "blobs/sha256").iterdir()):
        kept = blob.read_bytes()
        blob.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(ImageError):
            build.make(StageTask(model=task.model, output=task.output, inputs=task.inputs))
        blob.write_bytes(kept)


def test_an_index_with_two_images_is_refused(task: StageTask) -> None:
    path = task.input("layout") / "index.json"
    index = json.loads(path.read_text())
    index["manifests"] *= 2
    path.write_text(json.dumps(index))
    with pytest.raises(ImageError, match="exactly one image"):
        build.make(task)


def test_an_image_without_a_list_of_files_is_refused(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"etc/passwd": b""})
    for name in ("output", "model"):
        (tmp_path / name).mkdir()
    inputs = {"layout": tmp_path / "layout", "model": tmp_path / "model"}
    with pytest.raises(ImageError, match=r"files\.json"):
        build.make(StageTask(model=tmp_path, output=tmp_path / "output", inputs=inputs))
