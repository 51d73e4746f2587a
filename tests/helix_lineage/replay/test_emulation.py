"""Other processors, and what the command line says of another machine class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from helix_lineage.cli.main import app
from helix_lineage.errors import ReplayError
from helix_lineage.replay.emulation import QEMU, emulator
from helix_lineage.replay.executor import run_in_image
from helix_lineage.replay.images import UnpackedImage
from helix_lineage.shard import Prediction, ShardWriter
from tests.helix_lineage.support import NOW_NS, World, header, typed_input

needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is absent; run: make setup-tests")


@needs_qemu
def test_the_image_runs_on_an_emulated_processor_in_the_same_sandbox(unpacked: UnpackedImage) -> None:
    _, (own,) = run_in_image(unpacked, typed_input(1), [0])
    _, (emulated,) = run_in_image(unpacked, typed_input(1), [0], cpu="Haswell")
    assert emulated == own
    _, (seen,) = run_in_image(unpacked, typed_input(1, "probe"), [0], cpu="Haswell")
    assert b'"root": "OSError"' in seen
    assert b'"interfaces": ["lo"]' in seen


@needs_qemu
def test_an_unknown_processor_is_refused() -> None:
    with pytest.raises(ReplayError, match="cannot be the processor 'Abacus'"), emulator("Abacus"):
        pass


def test_without_the_emulator_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReplayError) as caught, emulator("Haswell"):
        pass
    assert caught.value.fix == "apt-get install qemu-user"


# ---- exit status ---------------------------------------------------------------------------------


def record(served: World, unpacked: UnpackedImage, machine_class: str, task: str) -> str:
    """A prediction of a machine of that class; the image itself says x86-64-v4 here."""
    given = typed_input(1, task)
    _, (output,) = run_in_image(unpacked, given, [0])
    served.log_dir.parent.mkdir(exist_ok=True)
    described = header(served.chain, machine_class=machine_class)
    with ShardWriter.create(served.log_dir, described, now=lambda: NOW_NS, release=served._bundle_once()) as writer:
        (name,) = writer.append([Prediction(b"1" * 16, 0, 1, given, output, 1, "strict", NOW_NS, NOW_NS)])
    return name


def replay(served: World, images: Path, *words: str) -> Result:
    (served.root / "trust.json").write_bytes(served.signer.trust_json())
    argv = ["replay", *words, "--images", str(images), "--registry", "127.0.0.1:1"]
    return CliRunner().invoke(app, [*argv, "--log", str(served.log_dir), "--trust", str(served.root / "trust.json")])


CASES = [
    # class that served, task, options, exit status, outcome
    ("x86-64-v3", "design", (), 0, "same-bytes"),
    ("x86-64-v3", "random", (), 2, "other-machine-class"),
    ("x86-64-v4", "random", (), 1, "differs"),
    ("x86-64-v3", "noise", ("--tolerance", "1e-4"), 0, "within-tolerance"),
    ("x86-64-v3", "noise", ("--tolerance", "1e-12"), 1, "differs"),
]


def test_each_outcome_has_its_exit_status(served: World, unpacked: UnpackedImage, images: Path) -> None:
    for machine_class, task, more, status, outcome in CASES:
        name = record(served, unpacked, machine_class, task)
        said = replay(served, images, name, "--json", *more)
        (verdict,) = json.loads(said.stdout)
        assert (said.exit_code, verdict["outcome"]) == (status, outcome), said.output
        assert (verdict["recorded_class"], verdict["machine_class"]) == (machine_class, "x86-64-v4")
        assert bool(verdict["deviation"]) == ("--tolerance" in more)


def test_people_are_told_both_classes_and_what_they_can_do(
    served: World, unpacked: UnpackedImage, images: Path
) -> None:
    name = record(served, unpacked, "x86-64-v3", "noise")
    lines = replay(served, images, name).stdout.splitlines()
    assert lines[0] == f"{name}  other bytes, on another machine class"
    assert lines[1] == "  machine-class: served on x86-64-v3, replayed on x86-64-v4"
    assert lines[-1].endswith("replay on a machine of class x86-64-v3, or say --tolerance")
    told = replay(served, images, name, "--tolerance", "1e-4").stdout
    assert "other bytes, within the tolerance" in told
    assert "numbers: 1 numbers, largest deviation" in told
