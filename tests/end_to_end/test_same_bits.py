"""Grade A, measured on the released engine: any batch, order, schedule, thread count, vector width and processor.

The same checks on ONNX Runtime, with the same weights, fail. Other processors are emulated by
`qemu-x86_64`, whose CPUID decides what numpy, libm, ONNX Runtime and our kernels run; version 7.2
has AVX2 and FMA, and no AVX-512.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cbor2
import pytest

from helix_lineage.replay.executor import run_in_image
from helix_lineage.replay.images import UnpackedImage
from helix_lineage.shard.entries import commitment
from helix_lineage.shard.reader import Log
from helixserve import machine
from model_to_metal import runtime
from tests import kernels, same_bits
from tests.clients import Address, by_json
from tests.end_to_end.conftest import MODEL, ROOT, Released, Serving

PROCESSORS = ("Haswell", "EPYC")
STRUCTURE = ROOT / "models" / MODEL / "golden" / "1ubi.pdb"
QEMU = "qemu-x86_64"


@pytest.fixture(scope="module")
def image(released: Released) -> UnpackedImage:
    return runtime.unpacked(released.state, MODEL, released.image)


@pytest.fixture(scope="module")
def engine(image: UnpackedImage) -> Path:
    return image.rootfs / "opt/helix/artifacts"


@pytest.fixture(scope="module")
def emulator() -> str:
    found = shutil.which(QEMU)
    if found is None:
        pytest.skip(f"needs {QEMU} to emulate other processors; run: make setup-tests")
    return found


def emulated(emulator: str, processor: str, argv: Sequence[str], **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a program on another processor; a failure shows what it said."""
    done = subprocess.run([emulator, "-cpu", processor, *argv], capture_output=True, check=False, **more)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    return done


def ask(engine: Path, runner: str, way: str, width: str | None = None) -> str:
    return same_bits.WAYS[way](same_bits.question(engine, runner, STRUCTURE, width))


def ask_on(emulator: str, processor: str, engine: Path, runner: str, *ways: str) -> dict[str, str]:
    argv = [sys.executable, "-m", same_bits.__name__, str(engine), runner, str(STRUCTURE), *ways]
    done = emulated(emulator, processor, argv, cwd=ROOT)
    return dict(line.split() for line in done.stdout.decode().splitlines())


def test_native_bits_depend_on_nothing_but_the_question(engine: Path, emulator: str, tmp_path: Path) -> None:
    """Batch, order, schedule, threads, vector width (none at all, too) and processor."""
    scalar = shutil.copytree(engine, tmp_path / "engine")
    for name, data in kernels.compiled(tmp_path / "scalar", ["scalar"]).items():
        # The portable form, where the runner looks for the form that every machine has.
        scalar.chmod(0o755)
        (scalar / name.replace("scalar", machine.V3)).unlink()
        (scalar / name.replace("scalar", machine.V3)).write_bytes(data)
    widths = [machine.V3, machine.V4] if machine.widest() == machine.V4 else [machine.V3]
    answers = {
        **{way: ask(engine, "native", way) for way in same_bits.WHOLE},
        **{width: ask(engine, "native", "together", width) for width in widths},
        "scalar": ask(scalar, "native", "together", machine.V3),
        **{name: ask_on(emulator, name, engine, "native", "together")["together"] for name in PROCESSORS},
    }
    assert len(answers) == len(same_bits.WHOLE) + len(widths) + 1 + len(PROCESSORS)
    assert len(set(answers.values())) == 1, answers


def test_onnx_runtime_fails_the_same_checks(engine: Path, emulator: str) -> None:
    """So its strict lane has batches of one, and its releases the class of their very processor."""
    for runner, same in (("native", True), ("onnxruntime", False)):
        assert (ask(engine, runner, "steps") == ask(engine, runner, "step_batch")) is same, runner
    if machine.widest() != machine.V4:
        pytest.skip("needs a processor with AVX-512, for another to differ; run there: make test-slow")
    there = ask_on(emulator, "Haswell", engine, "onnxruntime", "steps")
    assert there["steps"] != ask(engine, "onnxruntime", "steps")


def replayed(image: UnpackedImage, emulator: str, processor: str, typed: bytes) -> tuple[str, bytes]:
    """Machine class and output of item 0: the image's own interpreter, libraries and code on that processor."""
    root = image.rootfs

    def inside(paths: str) -> str:
        return ":".join(f"{root}{path}" for path in paths.split(":"))

    environment = {
        **image.env,
        "PYTHONPATH": inside(image.env["PYTHONPATH"]),
        "PYTHONHOME": inside("/usr"),
        "HELIX_HOME": inside("/opt/helix"),
    }
    argv = ["-L", str(root), f"{root}/usr/bin/python3.11", "-m", "helixserve", "replay"]
    request = cbor2.dumps([1, typed, [0]], canonical=True)
    done = emulated(emulator, processor, argv, input=request, env=environment)
    version, machine_class, (output,) = cbor2.loads(done.stdout)
    assert version == 1
    return machine_class, output


@pytest.mark.parametrize("task", ["design", "score"])
def test_what_was_served_is_made_again_on_other_processors(
    serving: Serving, address: Address, image: UnpackedImage, emulator: str, task: str
) -> None:
    ((prediction, _),) = by_json(address, task, {"structure": STRUCTURE.read_text(), "seed": 11})
    shard, sequence = Log(serving.log).find(prediction)
    entry, kept = shard.prediction(sequence), shard.payload(sequence)
    assert kept.input is not None
    assert kept.output_salt is not None
    assert shard.header.machine_class == machine.V3, "whatever this machine is"
    assert run_in_image(image, kept.input, [0]) == (machine.V3, [kept.output])
    for processor in PROCESSORS:
        machine_class, output = replayed(image, emulator, processor, kept.input)
        assert (machine_class, output) == (machine.V3, kept.output), processor
        assert commitment(kept.output_salt, output) == entry.output_commitment


def test_a_served_prediction_replays_without_a_word_about_the_machine(serving: Serving, address: Address) -> None:
    ((prediction, _),) = by_json(address, "score", {"structure": STRUCTURE.read_text(), "seed": 12})
    (verdict,) = json.loads(serving.lineage("replay", prediction, "--json").stdout)
    assert (verdict["same"], verdict["differences"], verdict["machine_class"]) == (True, [], machine.V3)
