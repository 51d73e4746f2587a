"""The released image, running under runc beside the benchmark: as it is, or with a recorder that records nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from benchmarks.setting import MODEL as FOLDER
from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from helixserve.model.contract import Contract, Model, load_class
from model_to_metal.errors import RuntimeStartError
from model_to_metal.local import container, directory
from model_to_metal.supply_chain import attest
from model_to_metal.supply_chain.provenance import RELEASE

MODEL = "proteinmpnn"
STRUCTURE = FOLDER / "golden" / "1ubi.pdb"
UNRECORDED = Path(__file__).with_name("unrecorded.py")


@dataclass(frozen=True)
class Released:
    """The release of this checkout."""

    state: State

    @property
    def bundle(self) -> Path:
        """The signed bundle. Raises RuntimeStartError when there is none."""
        path = self.state.releases / MODEL / attest.FILES[RELEASE]
        if not path.is_file():
            raise RuntimeStartError(f"{MODEL} has no release on this machine", fix=f"helix run release {MODEL}")
        return path

    @cached_property
    def verified(self) -> VerifiedRelease:
        """What it says."""
        return verify_release(self.bundle.read_bytes(), Trust.load(self.state.trust), image=None, at=datetime.now(UTC))

    @property
    def home(self) -> Path:
        """The image's /opt/helix, unpacked."""
        image = str(self.verified.release.parameters["image"])
        return container.unpacked(self.state, MODEL, image).rootfs / "opt" / "helix"

    def model(self) -> Model:
        """The model as the server opens it, in this process: the same runner on the same artifacts."""
        contract = Contract.load(self.home / "model" / "model.toml")
        artifacts = {path.name: path.read_bytes() for path in (self.home / "artifacts").iterdir() if path.is_file()}
        return load_class(contract).load(artifacts, contract)


@contextmanager
def log_folder() -> Iterator[Path]:
    """A folder that the image's user can reach."""
    with tempfile.TemporaryDirectory(prefix="helix-benchmark-log-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder / "log"


@contextmanager
def serving(state: State) -> Iterator[container.ServedImage]:
    """The image as it is released, on free ports, with a log of its own."""
    with log_folder() as log, container.serving(state, MODEL, ports=container.free_ports(), log=log) as server:
        yield server


@contextmanager
def unrecorded(state: State) -> Iterator[container.ServedImage]:
    """The same image and server, but nothing is written: `unrecorded.py` starts it."""
    released = Released(state)
    image = str(released.verified.release.parameters["image"])
    files, ports = container.unpacked(state, MODEL, image), container.free_ports()
    with (
        log_folder() as log,
        tempfile.TemporaryDirectory(prefix="helix-benchmark-") as name,
        directory.running(state, log.with_name("directory")) as registered,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        # As `runtime.serving` does it, but for what is run.
        container._mount_identity(folder / "helix", released.bundle, state, None)
        container._prepare(folder, files, log=log, env=container._environment(image, ports, None, registered))
        _start_with(folder / "config.json", UNRECORDED)
        with container._running(folder, f"helix-benchmark-{ports.http}") as (child, errors):
            container._await_ready(child, errors, ports.http)
            yield container.ServedImage(
                model=MODEL, image=image, release=released.verified.release.digest,
                http=f"http://127.0.0.1:{ports.http}", grpc=f"127.0.0.1:{ports.grpc}", log=log, directory=registered,
                child=child, errors=errors,
            )  # fmt: skip


def _start_with(path: Path, script: Path) -> None:
    """Have the container run a script of ours in place of `-m helixserve`.

    By its text: the server refuses to be ready when it has loaded a file that the release does not list.
    """
    config = json.loads(path.read_text())
    arguments = config["process"]["args"]
    at = arguments.index("helixserve")
    config["process"]["args"] = [*arguments[: at - 1], "-c", script.read_text(), *arguments[at + 1 :]]
    path.write_text(json.dumps(config))
