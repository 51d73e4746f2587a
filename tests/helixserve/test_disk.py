"""Full and broken disks under a real server: 503, nothing lost, and recovery without anybody's help."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from helix_lineage.attestations.trust import Trust
from helix_lineage.audit import audit
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import disk
from helix_lineage.tlog.layout import NEW_PREFIX
from helixserve.errors import NotReadyError, UnrecordedError
from helixserve.recording.recorder import Recorder
from tests.helixserve import support
from tests.helixserve.recording.test_recorder import append, open_recorder, prediction
from tests.helixserve.support import Place, Serving, serving
from tests.waiting import LONGEST_S, until

SIZE = 4 * 1024 * 1024
FILLER = "filler"


@contextlib.contextmanager
def small_disk(folder: Path, size: int = SIZE) -> Iterator[Path]:
    """A real file system of a few megabytes, mounted at `folder`."""
    folder.mkdir(exist_ok=True)
    sudo = ["sudo", "--non-interactive"] if os.geteuid() else []
    own = f"size={size},uid={os.getuid()},mode=755"
    done = subprocess.run(
        [*sudo, "mount", "-t", "tmpfs", "-o", own, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root; run as root: make test-fast")
    try:
        yield folder
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> int:
    """Take all the space that is left; how many bytes that was."""
    taken = 0
    with (folder / FILLER).open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            taken += file.write(bytes(4096))
    return taken


def ask(server: Serving) -> httpx.Response:
    return httpx.post(f"{server.url}/project", json={"values": [1], "repeats": 50}, timeout=LONGEST_S)


def readiness(server: Serving) -> httpx.Response:
    return httpx.get(f"{server.url}/v2/health/ready", timeout=LONGEST_S)


def until_ready(server: Serving) -> None:
    """With no request but the probes'."""
    until(lambda: readiness(server).status_code == 200, "a ready server")


def unready_while_it_looks(server: Serving, folder: Path, times: int) -> None:
    """Wait until the server looked so often whether its log takes something; it stays unready all the while.

    Each look makes a file in that folder and takes it away.
    """
    for _ in range(times):
        before = folder.stat().st_mtime_ns
        until(lambda before=before: folder.stat().st_mtime_ns != before, "the server's next look at its log")
        assert readiness(server).status_code == 503


def complaints(place: Place, acknowledged: list[str]) -> list[str]:
    """What was acknowledged and is not there, and whatever audit finds."""
    log, trust = Log(place.log), Trust.load(place.trust)
    found = []
    for name in acknowledged:
        shard, sequence = log.find(name)
        if not shard.inclusion(sequence).holds or shard.payload(sequence).output is None:
            found.append(f"lost: {name}")
    return found + [str(item) for item in audit(log, ReleaseSources(trust=trust)).findings]


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["prediction_id"] for item in answer.json()["predictions"]]


def test_a_full_disk_refuses_and_the_server_recovers_by_itself(place: Place) -> None:
    with small_disk(place.log), serving(place) as server:
        acknowledged = ids(ask(server))
        _until_full(server, place, acknowledged)
        for _ in range(3):
            refused = ask(server)
            assert (refused.status_code, refused.json()["where"]) == (503, "log")
            assert refused.headers["retry-after"] == "1"
        with triton.InferenceServerClient(server.grpc) as client:
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                client.infer("tiny-project", [])
            assert not client.is_server_ready()
        with grpc.insecure_channel(server.grpc) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            while next(watch).status != health_pb2.HealthCheckResponse.NOT_SERVING:
                pass  # told at the next look of the server at its log
            (place.log / FILLER).unlink()
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING, "watchers are told, unasked"
        until_ready(server)
        acknowledged += ids(ask(server))
        assert server.stop() == 0
        assert len(Log(place.log).shard_ids()) == 1, "the same shard goes on"
        assert complaints(place, acknowledged) == []


def test_a_server_that_starts_on_a_full_disk_serves_when_there_is_space(place: Place) -> None:
    with small_disk(place.log):
        fill(place.log)
        with serving(place) as server:
            response = readiness(server)
            assert (response.status_code, response.json()["where"]) == (503, "log")
            assert "No space left" in response.text
            unready_while_it_looks(server, place.log, times=3)
            until(
                lambda: not [path for path in place.log.iterdir() if path.name.startswith(NEW_PREFIX)],
                "a log folder in which nothing piles up",
            )
            (place.log / FILLER).unlink()
            until_ready(server)
            acknowledged = ids(ask(server))
            assert server.stop() == 0
        assert complaints(place, acknowledged) == []


def test_a_disk_that_stays_full_keeps_the_server_unready(place: Place) -> None:
    """The planted fault of the two tests above: without space there is no recovery, and the check says so."""
    with small_disk(place.log), serving(place) as server:
        _until_full(server, place, [])
        (shard,) = Log(place.log).shard_ids()
        unready_while_it_looks(server, place.log / shard, times=2)
        assert server.stop() == 0, "and it still ends when it is told to"


def test_after_a_failed_sync_a_new_shard_takes_over(place: Place) -> None:
    """The kernel itself fails the call, in the real process."""
    if shutil.which("strace") is None:
        pytest.skip("failing one system call of a process needs strace; run: make setup-tests")
    with serving(place) as server:
        acknowledged = ids(ask(server))
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
        command += ["-e", "inject=fdatasync,fsync:error=EIO", "-p", str(server.process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            try:
                refused = _until_refused(server, acknowledged)
                assert refused.json()["where"] == "log"
            finally:
                tracer.send_signal(signal.SIGINT)  # detaches: the disk works again
                assert tracer.stderr is not None
                said = tracer.stderr.read().decode()
        assert "not permitted" not in said, said
        until_ready(server)
        acknowledged += ids(ask(server))
        assert server.stop() == 0
    old, new = (name.partition(".")[0] for name in (acknowledged[0], acknowledged[-1]))
    assert old != new
    assert Log(place.log).shard(old).folder.recovered.read_text().startswith(new)
    assert complaints(place, acknowledged) == []


def _until_refused(server: Serving, acknowledged: list[str]) -> httpx.Response:
    answers: list[httpx.Response] = []

    def refused() -> bool:
        answers.append(ask(server))
        if answers[-1].status_code == 200:
            acknowledged.extend(ids(answers[-1]))
        return answers[-1].status_code != 200

    until(refused, "a request that cannot be recorded")
    return answers[-1]


def _until_full(server: Serving, place: Place, acknowledged: list[str]) -> None:
    """Fill the disk and the room that the log's own files have ahead, until the server stays unready.

    A write that is refused gives back what its other file had ahead; the server finds it, and rightly goes on.
    """

    def full() -> bool:
        fill(place.log)
        _until_refused(server, acknowledged)
        fill(place.log)
        until(lambda: "the last answer could not" not in readiness(server).text, "what the server finds when it looks")
        return fill(place.log) == 0 and "cannot record" in readiness(server).text

    until(full, "a full disk")


def sync_fails_once(patch: pytest.MonkeyPatch) -> None:
    real, failed = disk.AppendFile.sync, []

    def sync(self: disk.AppendFile) -> None:
        if not failed:
            failed.append(True)
            raise OSError(errno.EIO, "Input/output error")
        real(self)

    patch.setattr(disk.AppendFile, "sync", sync)


def test_a_broken_shard_is_closed_recovered_and_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = open_recorder(place)
    first = recorder.shard
    kept = append(recorder, [prediction()])
    sync_fails_once(monkeypatch)
    with pytest.raises(UnrecordedError, match="withheld"):
        append(recorder, [prediction()])
    with pytest.raises(UnrecordedError):
        append(recorder, [prediction()])  # not even now that the disk works: this shard takes nothing more
    recorder.mend()
    assert recorder.failure is None
    assert recorder.shard != first
    kept += append(recorder, [prediction()])
    recorder.close()
    assert complaints(place, kept) == []


def test_a_recorder_that_keeps_a_broken_shard_never_recovers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the disk works again, but the shard that saw it fail is asked on."""
    recorder = open_recorder(place)
    append(recorder, [prediction()])  # a segment is open: without one, the first failed sync only refuses
    sync_fails_once(monkeypatch)
    monkeypatch.setattr(ShardWriter, "broken", None)
    for _ in range(3):
        with pytest.raises(UnrecordedError):
            append(recorder, [prediction()])
        recorder.mend()
    recorder.close()


def admitted(place: Place, refusals: int) -> tuple[Recorder, list[str]]:
    """A recorder whose first shards are refused so many times, and the shards that were shown."""
    shown: list[str] = []

    def admit(writer: ShardWriter) -> None:
        shown.append(writer.shard_id)
        if len(shown) <= refusals:
            raise NotReadyError("the directory is away", where="directory")

    verified = support.verified(place)
    return Recorder.open(place.log, verified, "x86-64-v3", admit=admit), shown


def test_a_shard_takes_nothing_before_it_is_admitted(place: Place) -> None:
    recorder, shown = admitted(place, refusals=2)
    assert recorder.failure is not None
    assert recorder.failure.where == "directory"
    with pytest.raises(NotReadyError, match="directory"):
        append(recorder, [prediction()])
    recorder.mend()
    assert recorder.failure is not None
    recorder.mend()
    assert recorder.failure is None
    assert shown == [recorder.shard] * 3, "one shard, shown again"
    assert append(recorder, [prediction()]) == [f"{recorder.shard}.1"]
    recorder.close()


def test_each_new_shard_is_admitted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, shown = admitted(place, refusals=0)
    append(recorder, [prediction()])
    sync_fails_once(monkeypatch)
    with pytest.raises(UnrecordedError):
        append(recorder, [prediction()])
    recorder.mend()
    assert shown == [shown[0], recorder.shard]
    recorder.close()


def test_a_log_folder_that_is_a_link_is_refused(place: Place) -> None:
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    place.log.symlink_to(elsewhere)
    recorder = open_recorder(place)
    assert "is a link" in str(recorder.failure)
    assert list(elsewhere.iterdir()) == []
