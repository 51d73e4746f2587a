"""The directory as a process: real HTTP, real signals, and what a client notices."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from helix_lineage.cli.main import app
from helix_lineage.directory import admission, view
from helix_lineage.directory.entries import StatementEntry, decode
from helix_lineage.directory.rules import statement_of
from helix_lineage.directory.service import load_key
from helix_lineage.directory.source import FolderSource, UrlSource, open_source
from helix_lineage.errors import (
    DirectoryAway,
    DirectoryError,
    DirectoryRefusal,
    LineageError,
    TrustError,
)
from tests.helix_lineage.directory.support import MANY, TOKEN, Office, Running, now, running, start
from tests.helix_lineage.support import Signer
from tests.waiting import until

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_shards_life_over_http(office: Office) -> None:
    with running(office) as process:
        client = office.client(process.url)
        assert client.submit(office.released()).index == 0
        assert client.submit(office.released()).index == 0  # signed again: the stored bundle is looked at
        shard = office.shard()
        assert client.state(shard.id) is None
        assert client.take(shard.registration()).index == 1
        assert client.take(shard.grow(3).advance(1)).index == 2
        assert client.take(shard.end(4)).index == 3
        state = client.state(shard.id)
        assert state is not None
        assert (state.size, state.closed, state.last) == (5, True, 3)
        assert client.latest().size == 4
        with pytest.raises(DirectoryRefusal, match="the directory refuses: the shard is closed"):
            client.take(shard.grow().advance(5))
        seen = view.load(UrlSource(process.url, httpx.Client()), office.trust(), now(), audited=True)
        assert (seen.problems, seen.checkpoint.size) == ([], 4)
        client.close()
    with pytest.raises(DirectoryAway, match="cannot be reached"):
        office.client(process.url).latest()


def test_what_is_no_request_is_refused_in_words(office: Office) -> None:
    with running(office) as process:
        shard = "0" * 32
        tries: list[tuple[str, str, bytes | None, int]] = [
            ("POST", "/v1/shards", b"\x80", 400),
            ("POST", "/v1/shards?seen=x", office.shard().registration().to_bytes(), 400),
            ("POST", "/v1/shards?seen=9", office.shard().registration().to_bytes(), 416),
            ("POST", "/v1/shards", bytes(200_000), 413),
            ("POST", f"/v1/shards/{shard}/checkpoints", office.shard().grow().advance(1).to_bytes(), 400),
            ("POST", f"/v1/shards/{shard}/close", b"", 400),
            ("POST", "/v1/statements", b"{", 409),
            ("GET", f"/v1/shards/{shard}", None, 404),
            ("GET", "/tile/entries/%2e%2e/%2e%2e/journal", None, 404),
            ("GET", "/tile/0/999", None, 404),
            ("GET", "/v1/statements/..%2fjournal", None, 404),
            ("GET", "/v1/statements/" + "0" * 64, None, 404),
            ("DELETE", "/v1/shards", None, 405),
        ]
        for method, path, content, status in tries:
            answer = httpx.request(method, process.url + path, content=content, headers=HEADERS)
            assert answer.status_code == status, path
            assert answer.json()["error"], path
        assert httpx.get(f"{process.url}/healthz").json() == {"origin": office.origin, "size": 0}


def test_what_stands_for_another_statement_is_not_taken_for_ours(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory answers with an entry of another release: its bundle does not say what ours says."""
    with running(office) as process:
        client = office.client(process.url)
        client.submit(office.released())
        receipt = client.submit(office.released())
        held = decode(receipt.entry)[1]
        assert isinstance(held, StatementEntry)
        ours = office.promoted()[0]
        assert client._same_statement(receipt, statement_of(ours), ours) == statement_of(ours)
        bundle = (office.folder / "statement" / held.digest.hex()).read_bytes()
        assert client._same_statement(receipt, statement_of(ours), bundle) == held
        client.close()


def test_a_directory_that_was_rolled_back_under_its_client_is_noticed(office: Office, tmp_path: Path) -> None:
    """The copy lies outside the folder that is edited; the whole folder is put back, so it looks whole."""
    kept = tmp_path / "elsewhere"
    with running(office) as process:
        client = office.client(process.url)
        client.submit(office.released())
    shutil.copytree(office.folder, kept)
    with running(office) as process:
        client = office.client(process.url, seen=client.note)
        client.take(office.shard().registration())
        note = client.note
    shutil.rmtree(office.folder)
    shutil.copytree(kept, office.folder)
    with running(office) as process:
        client = office.client(process.url, seen=note)
        with pytest.raises(TrustError, match="the directory was rolled back: it has 1 entries, but showed 2"):
            client.take(office.shard().registration())
        # It grows again, with another history: a fork.
        other = office.client(process.url)
        other.take(office.shard(61).registration())
        other.take(office.shard(62).registration())
        with pytest.raises(TrustError, match="the directory was forked: its 3 entries do not extend the 2"):
            client.take(office.shard(62).registration())
        with pytest.raises(TrustError, match="was forked"):
            client.latest()


def test_tiles_that_are_not_the_checkpoints_are_noticed(office: Office) -> None:
    with running(office) as process:
        client = office.client(process.url)
        client.submit(office.released())
        other = office.client(process.url)
        other.take(office.shard().registration())
        tile = office.folder / "tile/0/000.p/2"
        data = tile.read_bytes()
        tile.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(TrustError, match="tiles are not those of its checkpoint"):
            client.latest()
        tile.write_bytes(data[:-1])
        with pytest.raises(TrustError, match="tiles do not hold"):
            client.latest()


def helix(*arguments: object) -> tuple[int, str, LineageError | None]:
    """The command line in this process: exit status, standard output, and the error that it would print."""
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    error = done.exception if isinstance(done.exception, LineageError) else None
    assert error or done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return (2 if error else done.exit_code), done.stdout, error


def witness(place: Path, kept: Path, trust: Path) -> tuple[int, dict[str, object]]:
    status, said, error = helix("witness", place, "--keep", kept, "--trust", trust, "--json")
    return status, {"error": error.what} if error else json.loads(said)


def test_a_witness_keeps_what_only_grew(office: Office, tmp_path: Path) -> None:
    kept, copy = tmp_path / "kept" / "checkpoint", tmp_path / "copy"
    _, trust = office.write_keys()
    directory = office.open()
    directory.take(statement_of(bundle := office.released()), bundle=bundle)
    directory.close()
    shutil.copytree(office.folder, copy)
    assert witness(office.folder, kept, trust)[0] == 0
    directory = office.open()
    directory.take(office.shard().registration())
    directory.close()
    status, said = witness(office.folder, kept, trust)
    assert (status, said["before"], said["entries"]) == (0, 1, 2)
    before = kept.read_bytes()
    status, said = witness(copy, kept, trust)
    assert status == 1
    assert "rolled back" in str(said["problem"])
    fork = Office(tmp_path / "fork", releaser=office.releaser, key=office.key)
    directory = fork.open()
    for at in range(3):
        directory.take(statement_of(bundle), bundle=bundle)
        directory.take(fork.shard(70 + at).registration())
    directory.close()
    status, said = witness(fork.folder, kept, trust)
    assert status == 1
    assert "forked" in str(said["problem"])
    assert kept.read_bytes() == before
    kept.write_bytes(before.replace(b"\n2\n", b"\n1\n"))
    status, said = witness(office.folder, kept, trust)
    assert status == 2
    assert "the kept checkpoint does not hold" in str(said["error"])


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="no directory here"):
        open_source(str(tmp_path / "x"))
    with pytest.raises(DirectoryError, match="the file checkpoint is missing"):
        FolderSource(tmp_path).require("checkpoint")


FIRST = 3
"""Receipts that are given before a kill."""


class Load:
    """Clients that register and advance shards, and remember each receipt that they were given."""

    def __init__(self, office: Office, url: str, first: int) -> None:
        self.office, self.url, self.first = office, url, first
        self.promised: list[tuple[int, bytes]] = []
        self._threads = [threading.Thread(target=self._client, args=(who,)) for who in range(4)]

    def run_until_killed(self, process: Running, seconds: float) -> None:
        for thread in self._threads:
            thread.start()
        until(
            lambda: len(self.promised) >= FIRST or not any(thread.is_alive() for thread in self._threads),
            "receipts, or the end of everybody who asks",
        )
        time.sleep(seconds)  # a moment that nothing decides
        process.kill()
        for thread in self._threads:
            thread.join()

    def _client(self, who: int) -> None:
        client = self.office.client(self.url)
        try:
            client.submit(self.office.released())
            for at in range(10_000):
                shard = self.office.shard(self.first + 10_000 * who + at)
                for body in (shard.registration(), shard.grow(2).advance(1), shard.end(3)):
                    receipt = client.take(body)
                    self.promised.append((receipt.index, receipt.entry))
        except LineageError:
            return
        finally:
            client.close()


def survives(office: Office, kills: int, seed: int) -> None:
    """0 lost, 0 unverifiable: everything that was answered is there, under a history that only grew."""
    rng = random.Random(seed)
    key, trust = office.write_keys()
    promised: list[tuple[int, bytes]] = []
    note: bytes | None = None
    for kill in range(kills):
        process = start(office.folder, key, trust, more=MANY)
        load = Load(office, process.url, 1_000_000 * (kill + 1))
        load.run_until_killed(process, rng.uniform(0, 0.2))
        promised += load.promised
        with running(office) as again:
            client = office.client(again.url, seen=note)
            client.latest()
            note = client.note
            client.close()
    held = view.load(FolderSource(office.folder), office.trust(), now(), audited=True)
    assert held.problems == []
    found = FolderSource(office.folder).entries(0, held.checkpoint.size)
    assert len(promised) >= FIRST * kills
    assert [index for index, entry in promised if found[index] != entry] == []


def test_kill_9_loses_nothing_that_was_answered(office: Office) -> None:
    survives(office, 3, seed=1)


@pytest.mark.long
def test_fifty_kills_lose_nothing_that_was_answered(office: Office) -> None:
    survives(office, 50, seed=2)


def test_a_second_process_on_one_folder_says_so(office: Office) -> None:
    with running(office):
        key, trust = office.write_keys()
        command = [sys.executable, "-m", "helix_lineage", "directory", "serve", str(office.folder), "--port", "0"]
        done = subprocess.run(
            [*command, "--key", str(key), "--trust", str(trust), "--registrants", str(key.with_name("registrants"))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "another process runs this directory" in done.stderr


def test_commands_submit_and_show(office: Office) -> None:
    with running(office) as process:
        trust = ["--trust", office.root / "trust.json"]
        bundle = office.root / "bundle"
        for index, content in enumerate((office.released(), office.revoked("release", office.chain.release.digest))):
            bundle.write_bytes(content)
            assert helix("directory", "submit", bundle, process.url, *trust) == (0, f"entry {index}\n", None)
        for place in (process.url, office.folder):
            status, said, _ = helix("directory", "status", place, *trust)
            assert status == 0
            assert "2 entries" in said
            assert f"revoked release {office.chain.release.digest}" in said
        bundle.write_bytes(Office(Path("x"), releaser=Signer()).released())
        status, _, error = helix("directory", "submit", bundle, process.url, *trust)
        assert error is not None
        assert "no signature is by a key of role 'releaser'" in error.what


def plant_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def plant_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("plant", [plant_link, os.mkfifo, plant_sparse, Path.mkdir], ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("name", ["statement/*", "tile/0/000.p/1", "checkpoint"])
def test_what_is_planted_in_the_folder_is_not_served_and_holds_nobody_up(
    office: Office, plant: Callable[[Path], None], name: str
) -> None:
    """Each planted pipe used to hold a thread for ever; forty of them, the directory. Links were followed."""
    with running(office) as process:
        office.client(process.url).submit(office.released())
        (path,) = office.folder.glob(name)
        path.unlink()
        plant(path)
        url = f"{process.url}/{name}".replace("statement/*", f"v1/statements/{path.name}")
        for _ in range(50):
            answer = httpx.get(url, timeout=10)
            assert (answer.status_code, answer.json()["error"]) == (404, "there is nothing of that name")
        assert httpx.get(f"{process.url}/healthz").json()["size"] == 1


@pytest.mark.parametrize("plant", [os.mkfifo, plant_sparse], ids=lambda plant: plant.__name__)
def test_registrants_tokens_and_keys_are_read_without_waiting(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    path = tmp_path / "planted"
    plant(path)
    path.chmod(0o600)
    for read in (admission.Registrants.load, admission.read_token, load_key):
        with pytest.raises(DirectoryError, match="cannot read the"):
            read(path)


def test_a_payload_that_says_two_things_is_refused(office: Office) -> None:
    payload = b'{"predicateType": "https://helix.example/release/v1", "predicateType": "x"}'
    bundle = json.loads(office.released())
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(DirectoryRefusal, match="key twice"):
        statement_of(json.dumps(bundle).encode())
