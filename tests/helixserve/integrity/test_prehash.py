from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path

import psutil
import pytest

from helix_lineage.formats.canonical import digest_bytes
from helixserve.errors import NotReadyError
from helixserve.integrity import manifest, prehash, readiness
from helixserve.settings import Settings
from tests.helixserve.support import Place
from tests.waiting import LONGEST_S, until

NOW = datetime.now(UTC)
READ = {"opt/helix/model/model.toml", "opt/helix/artifacts/tiny.onnx"}
"""What a server reads itself, whoever looked."""


@pytest.fixture
def settings(place: Place) -> Settings:
    return Settings.read(place.environment())


@pytest.fixture
def module(place: Place) -> Path:
    return place.home / "model" / "src" / "tiny_model" / "model.py"


@pytest.fixture
def hashed_here(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> set[str]:
    """A look has begun; what this process hashes from now on. Files are old enough to be known again."""
    monkeypatch.setattr(manifest, "_SETTLED_NS", -1)
    prehash.start(settings)
    names: set[str] = set()
    real = manifest.ImageFiles._read

    def read(self: manifest.ImageFiles, name: str) -> bytes:
        names.add(name)
        return real(self, name)

    monkeypatch.setattr(manifest.ImageFiles, "_read", read)
    return names


def test_what_the_look_has_hashed_is_not_hashed_again(settings: Settings, hashed_here: set[str]) -> None:
    readiness.load(settings, NOW)
    assert hashed_here == READ
    assert multiprocessing.active_children() == [], "the process that looked is gone"
    readiness.load(settings, NOW)
    assert hashed_here > READ, "a look counts once"


def test_what_changes_after_the_look_is_seen(settings: Settings, hashed_here: set[str], module: Path) -> None:
    process = prehash._started[0].process  # it may be over already
    assert wait([process.sentinel], timeout=LONGEST_S), "the look is over"
    module.write_bytes(module.read_bytes()[:-1] + b"#")
    with pytest.raises(NotReadyError, match="the release lists") as caught:
        readiness.load(settings, NOW)
    assert caught.value.where == "opt/helix/model/src/tiny_model/model.py"
    assert hashed_here == {*READ, caught.value.where}


def test_what_the_look_finds_wrong_is_said(settings: Settings, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.write_bytes(module.read_bytes() + b"#")
    prehash.start(settings)
    monkeypatch.setattr(manifest.ImageFiles, "check_tree", lambda *_: None)
    with pytest.raises(NotReadyError, match="bytes") as caught:
        readiness.load(settings, NOW)
    assert caught.value.where == "opt/helix/model/src/tiny_model/model.py"
    readiness.load(settings, NOW)  # the planted fault: nobody looks, and nothing is found


def test_after_a_look_that_died_this_process_looks(settings: Settings, hashed_here: set[str]) -> None:
    process = prehash._started[0].process  # it may be over already
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    # What it may have told already is thrown away with its end of the pipe.
    prehash._started[0].found.close()
    os.kill(process.pid, signal.SIGKILL)
    readiness.load(settings, NOW)
    assert hashed_here > READ


def test_where_no_process_may_be_made_this_one_looks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fork)
    prehash.start(settings)
    assert prehash.result() is None
    readiness.load(settings, NOW)


def test_a_look_by_another_list_counts_for_nothing(settings: Settings) -> None:
    prehash.start(settings)
    found = prehash.result()
    assert found is not None
    assert found.by(found.digest) is found.seen
    assert found.by(digest_bytes(b"another list")) is None


def test_a_list_that_cannot_be_read_is_told_by_who_knows_the_release(place: Place, settings: Settings) -> None:
    (place.home / "files.json").write_bytes(b"{}")
    prehash.start(settings)
    with pytest.raises(NotReadyError, match="the release names") as caught:
        readiness.load(settings, NOW)
    assert caught.value.where == "files.json"
    assert multiprocessing.active_children() == []


def test_a_look_whose_server_was_killed_ends(place: Place) -> None:
    """Also when it has more to tell than a pipe holds."""
    code = (
        "import json, os, signal\n"
        "from multiprocessing.connection import wait\n"
        "from helixserve.integrity import prehash\n"
        "from helixserve.settings import Settings\n"
        "real = json.dumps\n"
        "prehash.json.dumps = lambda told: real(told) + ' ' * 10**6\n"
        "prehash.start(Settings.read())\n"
        "print(prehash._started[0].process.pid, flush=True)\n"
        f"assert wait([prehash._started[0].found], {LONGEST_S}), 'the look tells nothing'\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=place.environment(), capture_output=True, text=True, timeout=LONGEST_S,
        check=False,
    )  # its own end of standard output is open until it ends, too  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(lambda: _is_gone(int(done.stdout)), "the look's end")


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
