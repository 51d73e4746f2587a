"""The real thing, once a session: a commit released through the whole workflow, and its image served by runc.

The release is made from a clone of the working tree as it is, so that these tests also run
before a commit; downloads, the Nix store and recorded stages are the checkout's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.paths import State
from helixserve.model.contract import Contract
from model_to_metal.local import container
from tests.clients import Address
from tests.model_to_metal.project import git
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
MODEL = "proteinmpnn"
SCRIPTS = Path(sys.executable).parent
HELIX = str(SCRIPTS / "helix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the image."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@dataclass(frozen=True)
class Released:
    """A released commit."""

    checkout: Path
    state: State
    answer: dict[str, Any]
    """What `helix run release --json` printed."""

    @property
    def image(self) -> str:
        """The image's manifest digest."""
        return str(self.answer["record"]["parameters"]["image"])

    def helix(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `helix` command in the clone."""
        return command([HELIX, *arguments], self.checkout, self.state, check=check)


def command(
    arguments: Sequence[str], folder: Path, state: State, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command with the state given; a failure shows what it wrote."""
    env = {**os.environ, "HELIX_STATE": str(state.root), "PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    done = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def clone(target: Path) -> Path:
    """A repository with one commit: the working tree as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    git(target, "init", "--quiet", "--initial-branch", "main")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "--message", "the working tree under test")
    return target


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    state = State(ROOT / ".helix") if "HELIX_STATE" not in os.environ else State.find()
    checkout = clone(tmp_path_factory.mktemp("clone"))
    # What a newcomer's first release needs; each is left alone where it is there.
    command([HELIX, "keys", "init"], checkout, state)
    command([HELIX, "fetch", MODEL], checkout, state)
    done = command([HELIX, "run", "release", MODEL, "--json"], checkout, state)
    return Released(checkout, state, json.loads(done.stdout))


@dataclass(frozen=True)
class Serving:
    """The image, running."""

    released: Released
    server: container.ServedImage

    @property
    def log(self) -> Path:
        """The folder of shards."""
        return self.server.log

    def lineage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `helix lineage` on this server's log."""
        return self.released.helix("lineage", *arguments, "--log", str(self.log), check=check)


@pytest.fixture(scope="session")
def serving(released: Released, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    log = tmp_path_factory.mktemp("log") / "shards"
    log.parent.chmod(0o755)
    for folder in log.parents:  # the image's user must be able to reach its log
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o111)
    ports = container.Ports(free_port(), free_port())
    with container.serving(released.state, MODEL, ports=ports, log=log) as server:
        yield Serving(released, server)


@pytest.fixture(scope="session")
def address(serving: Serving) -> Address:
    contract = Contract.load(ROOT / "models" / MODEL / "model.toml")
    return Address(serving.server.http, serving.server.grpc, contract)
