from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helix_lineage.errors import ReplayError
from helix_lineage.replay.images import UnpackedImage, check_files, check_layout, obtain
from tests.damage import flip_bit
from tests.helix_lineage.replay.support import BuiltImage
from tests.helix_lineage.support import digest

WEIGHTS = "opt/helix/artifacts/weights.safetensors"


def test_an_image_is_pulled_by_digest_and_unpacked_once(image: BuiltImage, registry: str, tmp_path: Path) -> None:
    first = obtain(image.digest, "helix/m", registry, tmp_path)
    assert first.folder.name == image.digest.removeprefix("sha256:")
    assert check_files(first, image.filesystem) == []
    assert first.env["PYTHONHOME"] == "/usr"
    again = obtain(image.digest, "helix/m", "127.0.0.1:1", tmp_path)  # nobody listens there
    assert again == first
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_what_the_registry_does_not_hold(image: BuiltImage, registry: str, tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"cannot pull the image: (?!.*level=fatal)"):
        obtain(digest("absent"), "helix/m", registry, tmp_path)
    with pytest.raises(ReplayError, match=r"cannot pull the image: (?!.*level=fatal)"):
        obtain(image.digest, "helix/other", registry, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_blob_that_is_not_its_digest_is_found(image: BuiltImage, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    shutil.copytree(image.layout, layout)
    check_layout(layout, image.digest)
    for blob in sorted((layout / "blobs/sha256").iterdir()):
        flip_bit(blob)
        with pytest.raises(ReplayError, match="hashes to"):
            check_layout(layout, image.digest)
        flip_bit(blob)
    with pytest.raises(ReplayError, match="the registry gave"):
        check_layout(layout, digest("other"))


def test_files_are_compared_with_their_list(image: BuiltImage, unpacked: UnpackedImage) -> None:
    root = unpacked.rootfs
    assert check_files(unpacked, image.filesystem) == []
    flip_bit(root / WEIGHTS)
    (found,) = check_files(unpacked, image.filesystem)
    assert found.factor == "weights"
    assert found.detail.startswith(f"{WEIGHTS} is sha256:")
    flip_bit(root / WEIGHTS)
    code = root / "opt/helix/platform/helixserve/__main__.py"
    code.write_text(code.read_text() + "\n")
    (root / "usr/lib/planted.py").write_text("x")
    (root / "usr/link").unlink()
    (root / "opt/helix/model/model.toml").chmod(0o600)
    details = {found.detail.partition(",")[0] for found in check_files(unpacked, image.filesystem)}
    assert "usr/lib/planted.py is not in the image" in details
    assert "usr/link cannot be read: No such file or directory" in details
    assert "opt/helix/model/model.toml has mode 600" in details
    assert len(details) == 4


def test_the_list_of_files_is_the_releases(unpacked: UnpackedImage) -> None:
    (found,) = check_files(unpacked, digest("another"))
    assert found.factor == "file"
    assert found.detail.startswith("opt/helix/files.json is sha256:")
    (unpacked.rootfs / "opt/helix/files.json").unlink()
    (found,) = check_files(unpacked, digest("another"))
    assert "is missing" in found.detail


def test_the_configuration_of_an_unpacked_image_is_its_own(image: BuiltImage, images: Path) -> None:
    folder = images / image.digest.removeprefix("sha256:")
    config = json.loads((folder / "config.json").read_bytes())
    config["config"]["Env"].append("PYTHONPATH=/evil")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ReplayError, match=r"configuration was changed .* rm -r"):
        obtain(image.digest, "helix/m", "127.0.0.1:1", images)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ReplayError, match="not the one of its digest"):
        obtain(image.digest, "helix/m", "127.0.0.1:1", images)
