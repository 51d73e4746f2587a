from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.shard import Prediction, ShardWriter
from helix_lineage.shard.reader import Log
from helixserve.errors import UnrecordedError
from helixserve.integrity import readiness
from helixserve.recording.recorder import _LOOP_BYTES, Recorder, libraries
from helixserve.settings import Settings
from tests.helixserve.support import IMAGE, Place


def open_recorder(place: Place, log: Path | None = None) -> Recorder:
    verified = readiness.load(Settings.read(place.environment()), datetime.now(UTC))
    return Recorder.open(log or place.log, verified, "x86-64-v3")


def append(recorder: Recorder, predictions: Sequence[Prediction]) -> list[str]:
    return asyncio.run(recorder.append_soon(predictions))


def prediction(index: int = 0) -> Prediction:
    return Prediction(bytes(16), index, 1 + index, b"in", b"out", 7, "strict", 1, 2)


def test_the_header_names_release_image_machine_and_libraries(place: Place) -> None:
    recorder = open_recorder(place)
    ids = append(recorder, [prediction(0), prediction(1)])
    recorder.close()
    shard = Log(place.log).shard(recorder.shard)
    assert ids == [f"{recorder.shard}.1", f"{recorder.shard}.2"]
    assert (shard.header.image, shard.header.machine_class, shard.header.model) == (IMAGE, "x86-64-v3", "tiny")
    assert (shard.header.mode, shard.header.promotion) == ("local", None)
    assert shard.header.libraries == libraries()
    assert shard.folder.release.read_bytes() == place.release.read_bytes()


def test_libraries_name_what_computes() -> None:
    assert {"python", "libc", "numpy", "onnxruntime"} <= set(libraries())


def test_a_log_that_cannot_be_opened_takes_nothing_until_it_can(place: Place) -> None:
    place.log.touch()
    recorder = open_recorder(place)
    assert recorder.failure is not None
    with pytest.raises(UnrecordedError):
        append(recorder, [prediction()])
    recorder.mend()
    assert recorder.failure is not None
    place.log.unlink()
    recorder.mend()
    assert recorder.failure is None
    assert append(recorder, [prediction()]) == [f"{recorder.shard}.1"]
    recorder.close()


def test_a_shard_that_cannot_be_written_is_refused_and_remembered(place: Place) -> None:
    recorder = open_recorder(place)
    recorder.close()
    with pytest.raises(UnrecordedError, match="withheld"):
        append(recorder, [prediction()])
    assert recorder.failure is not None


def test_a_large_answer_is_recorded_beside_the_event_loop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = open_recorder(place)
    large = Prediction(bytes(16), 0, 1, os.urandom(_LOOP_BYTES), b"out", 7, "strict", 1, 2)
    threads: list[str] = []
    prepare = ShardWriter._prepare

    def spied(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return prepare(*given)

    monkeypatch.setattr(ShardWriter, "_prepare", spied)
    names = [*append(recorder, [large]), *append(recorder, [prediction()])]
    recorder.close()
    shard, sequence = Log(place.log).find(names[0])
    assert shard.payload(sequence).input == large.input
    assert [name.startswith("helix-record") for name in threads] == [True, False]
