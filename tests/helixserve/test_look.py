from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helix_lineage.canonical import digest_bytes
from helixserve import look, readiness
from helixserve.errors import NotReadyError
from helixserve.image_files import Files
from helixserve.settings import Settings
from tests.helixserve.support import Place

NOW = datetime.now(UTC)


@pytest.fixture
def settings(place: Place) -> Settings:
    return Settings.read(place.environment())


@pytest.fixture
def looked_here(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> list[Path]:
    """The folders that this process looks at itself, with nothing found."""
    look.begin(settings)  # before this process stops looking
    folders: list[Path] = []
    monkeypatch.setattr(Files, "check_tree", lambda _, folder: folders.append(folder))
    return folders


def test_what_the_look_has_seen_is_not_looked_at_again(settings: Settings, looked_here: list[Path]) -> None:
    verified = readiness.load(settings, NOW)
    assert looked_here == []
    assert multiprocessing.active_children() == [], "the process that looked is gone"
    readiness.load(settings, NOW)
    assert looked_here == [settings.home], "a look counts once"
    assert verified.files.seen == {}, "files of the last two seconds are hashed again"


def test_what_the_look_finds_wrong_is_said(place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    module = place.home / "model" / "src" / "tiny_model" / "model.py"
    module.write_bytes(module.read_bytes() + b"#")
    look.begin(settings)
    monkeypatch.setattr(Files, "check_tree", lambda *_: None)
    with pytest.raises(NotReadyError, match="bytes") as caught:
        readiness.load(settings, NOW)
    assert caught.value.where == "opt/helix/model/src/tiny_model/model.py"
    readiness.load(settings, NOW)  # the planted fault: nobody looks, and nothing is found


def test_after_a_look_that_died_this_process_looks(settings: Settings, looked_here: list[Path]) -> None:
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    # What it may have told already is thrown away with its end of the pipe.
    look._begun[0].found.close()
    os.kill(process.pid, signal.SIGKILL)
    readiness.load(settings, NOW)
    assert looked_here == [settings.home]


def test_a_look_by_another_list_counts_for_nothing(settings: Settings, looked_here: list[Path]) -> None:
    assert look.end(digest_bytes(b"another list")) is None
    assert looked_here == []


def test_a_list_that_cannot_be_read_is_told_by_who_knows_the_release(place: Place, settings: Settings) -> None:
    (place.home / "files.json").write_bytes(b"{}")
    look.begin(settings)
    with pytest.raises(NotReadyError, match="the release names") as caught:
        readiness.load(settings, NOW)
    assert caught.value.where == "files.json"
    assert multiprocessing.active_children() == []
