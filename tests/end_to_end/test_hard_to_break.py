"""The image as it is deployed, under what clusters do to it: kill -9, full disks, promotions."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from helix_lineage.attestations.trust import Trust
from helix_lineage.audit import audit
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import trace
from helix_lineage.shard import entries
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import journal
from model_to_metal.gitops import layout
from model_to_metal.local import container
from tests.end_to_end.conftest import MODEL, ROOT, Released, git
from tests.ports import free_port
from tests.waiting import LONGEST_S, until

KILLS, MANY_KILLS = 20, 200
CLIENTS = 3
REQUEST = {"structure": (ROOT / "models" / MODEL / "golden" / "1ubi.pdb").read_text(), "num_sequences": 2}


@pytest.fixture
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for shards that the image's user can reach."""
    folder = tmp_path_factory.mktemp("log") / "shards"
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o111)
    return folder


def ports() -> container.Ports:
    return container.Ports(free_port(), free_port())


def client(url: str, acknowledged: list[str], stop: threading.Event) -> None:
    """Ask again and again; keep the id of every answer that arrived whole."""
    with httpx.Client(base_url=url, timeout=LONGEST_S) as session:
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError):
                answer = session.post("/design", json=REQUEST)
                if answer.status_code == 200:
                    acknowledged += [item["prediction_id"] for item in answer.json()["predictions"]]


@contextlib.contextmanager
def load(url: str, acknowledged: list[str]) -> Iterator[None]:
    """Clients that ask until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=client, args=(url, acknowledged, stop)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def kill(server: container.ServedImage) -> None:
    """SIGKILL to the container's first process, which is the server; nothing may be left of it."""
    inside = psutil.Process(server.child.pid).children(recursive=True)
    (init,) = [process for process in inside if "helixserve" in " ".join(process.cmdline())]
    sudo = ["sudo", "--non-interactive"] if os.geteuid() else []
    subprocess.run([*sudo, "kill", "-KILL", str(init.pid)], check=True)
    _, alive = psutil.wait_procs(inside, timeout=LONGEST_S)
    assert not alive, "a process of the image outlived its server"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.http.rpartition(":")[2]))), "somebody still listens"


def complaints(folder: Path, trust: Path, acknowledged: list[str]) -> list[str]:
    """What was acknowledged and is not in the log, verifiably; and whatever audit finds."""
    shards = Log(folder)
    found = []
    for name in acknowledged:
        shard, sequence = shards.find(name)
        try:
            held = shard.inclusion(sequence).holds and shard.payload(sequence).output is not None
        except Exception as error:  # whatever it is, the prediction can't be shown
            found.append(f"lost: {name}: {error}")
            continue
        found += [] if held else [f"lost: {name}"]
    return found + [str(item) for item in audit(shards, ReleaseSources(trust=Trust.load(trust))).findings]


def killed(released: Released, log: Path, times: int) -> list[str]:
    """Start, load, kill, so many times; gives what was acknowledged."""
    chance, acknowledged = random.Random(times), []
    for _ in range(times):
        with container.serving(released.state, MODEL, ports=ports(), log=log) as server:
            before = len(acknowledged)
            with load(server.http, acknowledged):
                until(lambda before=before: len(acknowledged) > before, "an answer")
                time.sleep(chance.uniform(0.0, 0.5))  # a moment that nothing decides
                kill(server)
    with container.serving(released.state, MODEL, ports=ports(), log=log):
        pass  # the last start recovers the last kill
    return acknowledged


def check_killed(released: Released, log: Path, times: int) -> list[str]:
    acknowledged = killed(released, log, times)
    assert complaints(log, released.state.trust, acknowledged) == []
    shards = [Log(log).shard(name) for name in Log(log).shard_ids()]
    assert len(shards) == times + 1
    assert sum(shard.folder.recovered.exists() for shard in shards) == times, "each start recovers the one before"
    return acknowledged


def test_kill_9_of_the_whole_image_loses_nothing_acknowledged(released: Released, log: Path, tmp_path: Path) -> None:
    acknowledged = check_killed(released, log, KILLS)
    # The planted fault: a log that lost the last group of one killed server.
    spoilt = tmp_path / "spoilt"
    shutil.copytree(log, spoilt)
    shard, _ = Log(spoilt).find(acknowledged[0])
    found = journal.parse(shard.folder.journal.read_bytes())
    os.truncate(shard.folder.journal, found.checkpoints[0].end)
    assert complaints(spoilt, released.state.trust, acknowledged)


@pytest.mark.long
def test_kill_9_two_hundred_times(released: Released, log: Path) -> None:
    check_killed(released, log, MANY_KILLS)


def readiness(server: container.ServedImage) -> httpx.Response:
    return httpx.get(f"{server.http}/v2/health/ready", timeout=LONGEST_S)


def unready_while_it_looks(server: container.ServedImage, shard: Path, times: int) -> None:
    """Wait until the server looked so often whether its shard takes something; it stays unready all the while.

    Each look makes a file in the shard's folder and takes it away.
    """
    for _ in range(times):
        before = shard.stat().st_mtime_ns
        until(lambda before=before: shard.stat().st_mtime_ns != before, "the server's next look at its log")
        assert readiness(server).status_code == 503


def test_the_image_recovers_by_itself_from_a_full_disk(released: Released, log: Path) -> None:
    log.mkdir()
    sudo = ["sudo", "--non-interactive"] if os.geteuid() else []
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(log)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root: run `sudo -v` first, or the tests as root")
    acknowledged: list[str] = []
    try:
        with container.serving(released.state, MODEL, ports=ports(), log=log) as server:
            ask = {"json": REQUEST, "timeout": 60}
            answer = httpx.post(f"{server.http}/design", **ask)  # type: ignore[arg-type]
            acknowledged += [item["prediction_id"] for item in answer.json()["predictions"]]
            filler = log / "filler"
            fill = [*sudo, "dd", "if=/dev/zero", f"of={filler}", "bs=4k", "oflag=append", "conv=notrunc"]

            def full() -> bool:
                """The log's files have room ahead, and a refused write gives back what is left of it."""
                subprocess.run(fill, capture_output=True, check=False)
                while (answer := httpx.post(f"{server.http}/design", **ask)).status_code == 200:  # type: ignore[arg-type]
                    acknowledged.extend(item["prediction_id"] for item in answer.json()["predictions"])
                assert answer.status_code == 503
                subprocess.run(fill, capture_output=True, check=False)
                until(lambda: "the last answer could not" not in readiness(server).text, "what the server finds")
                filled = filler.stat().st_size
                subprocess.run(fill, capture_output=True, check=False)
                return filler.stat().st_size == filled and "cannot record" in readiness(server).text

            until(full, "a full disk")
            (shard_id,) = Log(log).shard_ids()
            unready_while_it_looks(server, log / shard_id, times=2)
            subprocess.run([*sudo, "rm", str(filler)], check=True)
            until(lambda: readiness(server).status_code == 200, "a ready server")
            answer = httpx.post(f"{server.http}/design", **ask)  # type: ignore[arg-type]
            acknowledged += [item["prediction_id"] for item in answer.json()["predictions"]]
        assert complaints(log, released.state.trust, acknowledged) == []
        shard, _ = Log(log).find(acknowledged[0])
        assert isinstance(entries.decode(shard.entry(shard.size - 1)), entries.Close)
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(log)], check=True)


def promoted(released: Released, folder: Path) -> container.Environment:
    """Promote the release to staging on a branch, and take the model's folder from there."""
    released.helix("promote", MODEL, "--to", "staging")
    listed = git(released.checkout, "branch", "--list", "promote/staging/*", "--format=%(refname:short)")
    branch = listed.splitlines()[-1]
    folder.mkdir()
    for name in (layout.RELEASE, layout.PROMOTION):
        text = git(released.checkout, "show", f"{branch}:{layout.folder('staging', MODEL)}/{name}")
        (folder / name).write_text(text)
    return container.Environment("staging", folder)


def test_a_promoted_server_says_so_and_trace_verifies_it(released: Released, log: Path, tmp_path: Path) -> None:
    environment = promoted(released, tmp_path / "staging")
    with container.serving(released.state, MODEL, ports=ports(), log=log, environment=environment) as server:
        answer = httpx.post(f"{server.http}/design", json=REQUEST, timeout=60).json()
    prediction = answer["predictions"][0]["prediction_id"]
    found = trace(Log(log), prediction, ReleaseSources(trust=Trust.load(released.state.trust)))
    assert found.header.mode == "promoted"
    assert found.promotion is not None
    assert (found.promotion.environment, found.promotion.generation) == ("staging", found.header.generation)
    assert complaints(log, released.state.trust, [prediction]) == []
    elsewhere = container.Environment("production", environment.folder)
    with (
        pytest.raises(container.RuntimeStartError, match="environment is staging, but this environment is production"),
        container.serving(released.state, MODEL, ports=ports(), log=log, environment=elsewhere),
    ):
        pass
