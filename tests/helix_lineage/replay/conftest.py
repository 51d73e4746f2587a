"""A real image, unpacked and in a real registry, and predictions that its model made."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helix_lineage.paths import State
from helix_lineage.replay import ReplayPlan, plan
from helix_lineage.replay.images import UnpackedImage, obtain
from model_to_metal.host import tools
from tests.helix_lineage.replay import support
from tests.helix_lineage.support import Signer, World, make_chain, request
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def ready(world: World) -> ReplayPlan:
    """What replays the only prediction of a log."""
    (name,) = world.shard([request(output="MK")])
    return plan(world.log, name, world.sources)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> support.BuiltImage:
    return support.build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, image: support.BuiltImage) -> Iterator[str]:
    """olareg, holding the image at `helix/m`; gives HOST:PORT."""
    folder = tmp_path_factory.mktemp("registry")
    olareg = tools.ensure("olareg", State(Path(os.environ.get("HELIX_STATE", ROOT / ".helix"))))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(olareg), "serve", "--addr", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
             f"oci:{image.layout}:image", f"docker://127.0.0.1:{port}/helix/m:latest"], check=True
        )  # fmt: skip
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    until(listens, "a registry that listens")


@pytest.fixture(scope="session")
def pulled(tmp_path_factory: pytest.TempPathFactory, image: support.BuiltImage, registry: str) -> Path:
    """The folder of unpacked images, holding the image. Not to be spoilt: see `images`."""
    folder = tmp_path_factory.mktemp("images")
    obtain(image.digest, "helix/m", registry, folder)
    return folder


@pytest.fixture
def images(pulled: Path, tmp_path: Path) -> Path:
    """A folder of unpacked images, free to spoil."""
    shutil.copytree(pulled, tmp_path / "images", symlinks=True)
    return tmp_path / "images"


@pytest.fixture
def unpacked(image: support.BuiltImage, images: Path) -> UnpackedImage:
    return obtain(image.digest, "helix/m", "127.0.0.1:1", images)


@pytest.fixture
def served(tmp_path: Path, image: support.BuiltImage) -> World:
    """A log that the image's server writes."""
    signer = Signer()
    chain = make_chain(image=image.digest, filesystem=image.filesystem)
    return World(tmp_path, chain, signer)
