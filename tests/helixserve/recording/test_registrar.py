"""Servers and the directory, real processes both: registered before use, followed, ended, and an outage between."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from helix_lineage.attestations.trust import Trust
from helix_lineage.audit import audit
from helix_lineage.directory import view
from helix_lineage.directory.entries import Registration
from helix_lineage.directory.receipt import DirectoryReceipt
from helix_lineage.directory.source import FolderSource
from helix_lineage.errors import DirectoryAway
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import ShardHeader, ShardWriter
from helix_lineage.shard.reader import Log
from helixserve.errors import NotReadyError
from helixserve.recording.registrar import Registrar
from tests.helix_lineage.directory.support import TOKEN, Office, Running, directory_key, key_entry, running, start
from tests.helix_lineage.support import header, request
from tests.helixserve import support
from tests.helixserve.support import Place, Serving, serving
from tests.ports import free_port
from tests.waiting import LONGEST_S, until


@dataclass
class Far:
    """A directory in a folder of its own, that trusts the place's releaser, and can be killed and started again."""

    place: Place
    folder: Path
    port: int = field(default_factory=free_port)
    process: Running | None = None

    def __post_init__(self) -> None:
        root = support.trust(self.place.key)
        assert isinstance(root["keys"], list)
        root["keys"].append(key_entry(directory_key()))
        self.place.trust.write_text(json.dumps(root))
        Office(self.folder).write_keys()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def known(self) -> dict[str, str]:
        """What a server is told of it."""
        return {"HELIX_DIRECTORY": self.url, "HELIX_DIRECTORY_TOKEN_FILE": str(Office(self.folder).token)}

    def start(self) -> None:
        self.process = start(self.folder / "log", self.folder / "directory.key", self.place.trust, self.port)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def view(self) -> view.View:
        return view.load(FolderSource(self.folder / "log"), self.trust, datetime.now(UTC), audited=True)

    @property
    def trust(self) -> Trust:
        return Trust.load(self.place.trust)

    def audit(self, log: Path, *, whole: bool = False) -> list[str]:
        report = audit(Log(log), ReleaseSources(trust=self.trust), directory=self.view, whole=whole)
        return [f"{finding.rule}: {finding.message}" for finding in report.findings]


@pytest.fixture
def far(place: Place, tmp_path: Path) -> Iterator[Far]:
    folder = tmp_path / "far"
    folder.mkdir()
    made = Far(place, folder)
    made.start()
    yield made
    if made.process is not None and made.process.process.poll() is None:
        made.process.process.terminate()
        made.process.process.wait(LONGEST_S)


READY = "a ready server"


def is_ready(server: Serving) -> bool:
    return httpx.get(f"{server.url}/v2/health/ready", timeout=LONGEST_S).status_code == 200


class Load:
    """A client that asks one thing after another, and counts the answers."""

    def __init__(self, server: Serving) -> None:
        self.statuses: list[int] = []
        self._server, self._ending = server, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        # A connection each: one that is kept may be closed by the server, if this machine lets us wait, as we use it.
        with httpx.Client(timeout=LONGEST_S, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            while not self._ending.is_set():
                answer = client.post(f"{self._server.url}/project", json={"values": [1, 2]})
                self.statuses.append(answer.status_code)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def test_a_server_registers_is_followed_and_ends(place: Place, far: Far) -> None:
    with serving(place, **far.known) as server:
        until(lambda: is_ready(server), READY)
        (name,) = Log(place.log).shard_ids()
        assert far.view().book.shards[name].size == 1
        httpx.post(f"{server.url}/project", json={"values": [1]})
        until(lambda: far.view().book.shards[name].size > 1, "a directory that follows")
        assert server.stop() == 0
    known = far.view().book.shards[name]
    assert (known.closed, known.size) == (True, Log(place.log).shard(name).size)
    assert far.audit(place.log, whole=True) == []


def test_a_directory_that_the_trust_root_does_not_name_makes_a_server_unready(place: Place, far: Far) -> None:
    place.trust.write_text(json.dumps(support.trust(place.key)))
    with serving(place, **far.known) as server:
        answer = httpx.get(f"{server.url}/v2/health/ready")
        assert answer.status_code == 503
        assert "no key of role 'directory'" in answer.text
        assert httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 503


def test_without_a_token_that_the_directory_knows_a_server_is_not_ready(place: Place, far: Far, tmp_path: Path) -> None:
    """It says which variable to look at, and is ready once the file holds the token."""
    token = tmp_path / "token"
    token.write_text("another-token-than-the-directory-knows-of")
    token.chmod(0o600)
    with serving(place, HELIX_DIRECTORY=far.url) as server:
        said = httpx.get(f"{server.url}/v2/health/ready", timeout=LONGEST_S).json()
        assert "no token that this directory knows" in said["error"]
        assert said["where"] == "HELIX_DIRECTORY_TOKEN_FILE"
        assert httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 503
    with serving(place, HELIX_DIRECTORY=far.url, HELIX_DIRECTORY_TOKEN_FILE=str(token)) as server:
        assert (
            "no token that this directory knows" in httpx.get(f"{server.url}/v2/health/ready", timeout=LONGEST_S).text
        )
        token.write_text(TOKEN)
        until(lambda: is_ready(server), READY)
    assert TOKEN not in server.output.read_text()
    assert far.audit(place.log) == []


def outage(place: Place, far: Far, tmp_path: Path, seconds: float) -> dict[str, int]:
    """The directory is killed under load, and comes back: what was ready goes on, what is new waits."""
    other = tmp_path / "other-log"
    with serving(place, **far.known) as first:
        until(lambda: is_ready(first), READY)
        (name,) = Log(place.log).shard_ids()
        with Load(first) as load:
            until(lambda: len(load.statuses) > 5, "load")
            far.kill()
            began, before = time.monotonic(), len(load.statuses)
            with serving(place, **far.known, HELIX_LOG=str(other)) as second:

                def over() -> bool:
                    answer = httpx.get(f"{second.url}/v2/health/ready", timeout=LONGEST_S)
                    assert answer.status_code == 503
                    assert is_ready(first)
                    told = "the shard cannot be registered: the directory cannot be reached" in answer.text
                    return told and time.monotonic() - began > seconds

                until(over, "the end of the outage", seconds + LONGEST_S)
                assert httpx.post(f"{second.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 503
                meanwhile = len(load.statuses) - before
                assert meanwhile > 0
                behind = Log(place.log).shard(name).size - far.view().book.shards[name].size
                assert behind >= meanwhile
                size = Log(place.log).shard(name).size
                far.start()
                until(lambda: is_ready(second), READY)
                until(lambda: far.view().book.shards[name].size >= size, "a directory that knows every entry")
                assert httpx.post(f"{second.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 200
                assert second.stop() == 0
        assert set(load.statuses) == {200}
        assert first.stop() == 0
    shards = far.view().book.shards
    assert [shard.closed for shard in shards.values()] == [True, True]
    assert len(Log(other).shard_ids()) == 1  # the writer that waited was shown again, and no other made
    assert far.audit(place.log) == far.audit(other) == []
    return {"answered": meanwhile, "behind": behind}


def test_while_the_directory_is_away_the_ready_go_on_and_the_new_wait(place: Place, far: Far, tmp_path: Path) -> None:
    outage(place, far, tmp_path, 3)


@pytest.mark.long
def test_thirty_seconds_without_a_directory(place: Place, far: Far, tmp_path: Path) -> None:
    print(outage(place, far, tmp_path, 30))


@contextmanager
def registered(office: Office, log: Path, url: str) -> Iterator[tuple[Registrar, ShardWriter]]:
    made: ShardHeader = header(office.chain)
    registrar = Registrar(url, office.trust(), [office.released()], token=office.token, interval_s=0.05)
    with ShardWriter.create(log, made) as writer:
        registrar.admit(writer)
        yield registrar, writer
    registrar.close()


def test_what_an_ended_process_could_not_tell_the_next_one_tells(tmp_path: Path) -> None:
    office, log = Office(tmp_path), tmp_path / "log"
    with running(office) as process, registered(office, log, process.url) as (_, writer):
        writer.append(request())
        process.kill()
    (log / ".new-gone").symlink_to("nowhere")  # as a folder of another start that is gone when it is looked at
    with running(office) as process, registered(office, log, process.url) as (_, second):
        seen = lambda: view.load(FolderSource(office.folder), office.trust(), datetime.now(UTC)).book.shards  # noqa: E731
        until(lambda: seen()[writer.shard_id].closed, "the close of the shard whose process ended")
        assert second.shard_id in seen()


def test_an_answer_that_was_lost_does_not_stop_the_shard(tmp_path: Path) -> None:
    """The directory took a checkpoint that this registrar believes it did not take."""
    office = Office(tmp_path)
    with running(office) as process, registered(office, tmp_path / "log", process.url) as (registrar, writer):
        writer.append(request(count=3))
        until(lambda: registrar._followed[0].taken == 4, "four entries told")
        with registrar._lock:
            registrar._followed[0].taken = 2
        writer.append(request())
        until(lambda: registrar._followed[0].taken == 5, "five entries told")
        assert registrar.problem is None


def test_a_shard_that_was_registered_and_never_served_is_withdrawn_by_its_key(tmp_path: Path) -> None:
    """The directory took it, its answer was lost, and the server ends: an audit misses nothing afterwards."""
    office, log = Office(tmp_path), tmp_path / "log"
    with running(office) as process:
        registrar = Registrar(process.url, office.trust(), [office.released()], token=office.token)
        with ShardWriter.create(log, header(office.chain), release=office.released()) as writer:
            take = registrar._client.take

            def lost(body: Registration) -> DirectoryReceipt:
                take(body)
                raise DirectoryAway("the answer was lost")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(registrar._client, "take", lost)
                with pytest.raises(NotReadyError, match="the answer was lost"):
                    registrar.admit(writer)
        registrar.close()

    def seen() -> view.View:
        return view.load(FolderSource(office.folder), office.trust(), datetime.now(UTC), audited=True)

    assert seen().book.shards[writer.shard_id].withdrawn
    shutil.rmtree(writer.folder)
    report = audit(Log(log), ReleaseSources(trust=office.trust()), directory=seen)
    assert report.findings == []
    assert any("withdrawn: its own key closed it before it served anything" in note for note in report.notes)


def test_a_directory_that_lies_admits_nothing(tmp_path: Path) -> None:
    """It has another key than the trust root says."""
    office, liar = Office(tmp_path), Office(tmp_path, key=directory_key(9))
    liar.releaser = office.releaser
    with running(liar) as process:
        registrar = Registrar(process.url, office.trust(), [office.released()], token=office.token)
        with (
            ShardWriter.create(tmp_path / "log", header(office.chain)) as writer,
            pytest.raises(NotReadyError, match="not signed by the log's key") as caught,
        ):
            registrar.admit(writer)
        assert caught.value.where == "HELIX_DIRECTORY"
        registrar.close()


def test_a_directory_that_goes_back_is_complained_of_and_serving_goes_on(tmp_path: Path) -> None:
    office = Office(tmp_path)
    port = free_port()
    with running(office, port) as process, registered(office, tmp_path / "log", process.url) as (registrar, writer):
        process.kill()
        # Put back to nothing, tiles and bundles too: it looks whole to itself.
        for name in ("journal", "checkpoint"):
            (office.folder / name).unlink()
        for name in ("tile", "statement"):
            shutil.rmtree(office.folder / name)
        with running(office, port):
            writer.append(request())
            until(lambda: "rolled back" in (registrar.problem or ""), "a complaint")
            writer.append(request())
        registrar._statements.clear()
