"""`helix serve` as a person or a supervisor starts and stops it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helix_lineage.shard.reader import Log
from model_to_metal.local import container
from tests.end_to_end.conftest import MODEL, ROOT, SCRIPTS, Released
from tests.ports import free_port
from tests.waiting import LONGEST_S, until

UBIQUITIN = (ROOT / "models" / MODEL / "golden" / "1ubi.pdb").read_text()


@pytest.fixture
def heard() -> Iterator[None]:
    """A process started here hears SIGINT, even where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_stop_and_closes_its_shard(released: Released, stop: signal.Signals) -> None:
    http, grpc = free_port(), free_port()
    argv = [str(SCRIPTS / "helix"), "serve", MODEL, "--json", "--http-port", str(http), "--grpc-port", str(grpc)]
    env = {**os.environ, "HELIX_STATE": str(released.state.root)}
    before = set(released.state.log.iterdir()) if released.state.log.exists() else set()
    with subprocess.Popen(argv, cwd=released.checkout, env=env, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            row = json.loads(child.stdout.readline())
            assert row["image"] == released.image
            answer = httpx.post(f"{row['http']}/design", json={"structure": UBIQUITIN, "seed": 1}, timeout=60)
            prediction = answer.json()["predictions"][0]["prediction_id"]
        finally:
            child.send_signal(stop)
        assert child.wait(LONGEST_S) == 0
    (folder,) = set(released.state.log.iterdir()) - before
    shard, sequence = Log(released.state.log).find(prediction)
    assert folder.name == shard.id
    assert shard.inclusion(sequence).checkpoint.size >= sequence + 2, "the entry, and after it the close"


def parent_of(pid: int) -> int | None:
    """The parent of a process that runs; None when there is none, or only its remains are there."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def processes_of(pid: int) -> set[int]:
    """The processes that a process started itself."""
    return {int(path.name) for path in Path("/proc").glob("[0-9]*") if parent_of(int(path.name)) == pid}


def test_a_killed_command_leaves_no_server_behind(released: Released) -> None:
    http = free_port()
    argv = [str(SCRIPTS / "helix"), "serve", MODEL, "--json", "--http-port", str(http), "--grpc-port", str(free_port())]
    env = {**os.environ, "HELIX_STATE": str(released.state.root)}
    with subprocess.Popen(argv, cwd=released.checkout, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["image"] == released.image
        started = processes_of(child.pid)
        child.kill()

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", http)) != 0

    until(refused, "an end of the server")
    # Its directory ends with it, too; another server must not find it on its last legs.
    until(lambda: not {pid for pid in started if parent_of(pid) is not None}, "an end of all that it started")


def test_a_server_that_ends_by_itself_ends_the_command(released: Released) -> None:
    ports = container.Ports(free_port(), free_port())
    with container.serving(released.state, MODEL, ports=ports) as server:
        server.child.terminate()
        with pytest.raises(container.RuntimeStartError, match="ended by itself"):
            server.wait()


def test_a_spoilt_release_is_not_served(released: Released) -> None:
    bundle = released.state.releases / MODEL / "release.sigstore.json"
    kept = bundle.read_bytes()
    envelope = json.loads(kept)
    envelope["dsseEnvelope"]["payload"] = envelope["dsseEnvelope"]["payload"][::-1]
    bundle.write_text(json.dumps(envelope))
    try:
        done = released.helix("serve", MODEL, check=False)
    finally:
        bundle.write_bytes(kept)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("helix: ")


def test_a_file_changed_in_the_image_keeps_the_server_unready(released: Released) -> None:
    image = container.unpacked(released.state, MODEL, released.image)
    path = image.rootfs / "opt/helix/artifacts/encoder.onnx"
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        with (
            pytest.raises(container.RuntimeStartError, match=r"encoder\.onnx"),
            container.serving(released.state, MODEL, ports=container.Ports(free_port(), free_port())),
        ):
            pass
    finally:
        path.write_bytes(kept)
