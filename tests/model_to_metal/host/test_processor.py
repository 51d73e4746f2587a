"""What a processor means for bits and speed, and that `helix doctor` says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helix_lineage.paths import State
from helixserve.errors import NotReadyError
from helixserve.runners import machine
from model_to_metal.cli import doctor as command, main
from model_to_metal.host import processor
from model_to_metal.host.checkout import Checkout
from model_to_metal.host.processor import Processor
from model_to_metal.local import doctor
from tests.commands import exit_status

WIDE = Processor("AMD EPYC", machine.V4, machine.V4)
NARROW = Processor("AMD EPYC 7763", machine.V3, machine.V3)
EMULATED = Processor("AMD EPYC", machine.V4, machine.V3)


def test_the_class_the_kernels_and_what_they_mean_are_said() -> None:
    assert WIDE.summary == "AMD EPYC, machine class x86-64-v4 (AVX-512 kernels)"
    assert NARROW.summary == "AMD EPYC 7763, machine class x86-64-v3 (AVX2 kernels)"
    for one in (WIDE, NARROW, EMULATED):
        native, other, speed = one.notes
        assert "same bytes on every x86-64-v3 machine" in native
        assert one.machine_class in other
        assert f"the {'AVX-512' if one is WIDE else 'AVX2'} kernels run" in speed
    assert "not served here" in EMULATED.notes[1]
    assert WIDE.to_json()["same_bytes"] == {"native": "x86-64-v3", "onnxruntime": "x86-64-v4"}
    assert EMULATED.to_json()["same_bytes"] == {"native": "x86-64-v3", "onnxruntime": None}


def test_this_processor_is_what_the_server_would_record() -> None:
    here = processor.this()
    assert here.machine_class == machine.machine_class()
    assert here.kernels == machine.widest()


def test_a_processor_below_the_lowest_class_is_no_processor_for_helix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("model name : Old\nflags : sse2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    with pytest.raises(NotReadyError, match="below x86-64-v3"):
        processor.this()
    finding = doctor._processor()
    assert not finding.met
    assert "lacks" in finding.detail


@pytest.fixture
def only_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "this", lambda: WIDE)
    monkeypatch.setattr(doctor, "examine", lambda *_arguments: [doctor._processor()])
    monkeypatch.setattr(command.Checkout, "find", staticmethod(lambda: Checkout(tmp_path)))
    monkeypatch.setattr(command.State, "find", staticmethod(lambda: State(tmp_path)))


@pytest.mark.usefixtures("only_the_processor")
def test_doctor_says_it_on_screen_and_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def helix(*arguments: str) -> str:
        assert exit_status(main.main, "helix", *arguments) == 0
        return capsys.readouterr().out

    said = helix("doctor")
    assert all(sentence in said for sentence in (WIDE.summary, *WIDE.notes))
    (finding,) = json.loads(helix("doctor", "--json"))
    assert finding["facts"] == WIDE.to_json()
    assert finding["notes"] == list(WIDE.notes)
