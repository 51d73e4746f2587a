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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.attestations.trust import Trust
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.replay.executor import run_in_image
from helix_lineage.replay.images import UnpackedImage
from helix_lineage.replay.plan import plan
from helix_lineage.replay.verdict import judge
from helix_lineage.shard.entries import commitment
from helix_lineage.shard.reader import Log
from helixserve.runners import machine
from model_to_metal.local import container
from tests import same_bits
from tests.clients import Address, by_json
from tests.end_to_end.conftest import MODEL, ROOT, Released, Serving
from tests.models.proteinmpnn import kernels

PROCESSORS = ("Haswell", "EPYC")
STRUCTURE = ROOT / "models" / MODEL / "golden" / "1ubi.pdb"
SHORT = 24
"""Residues of it that `make test` asks emulated processors about: an emulated product may take 100 ns."""
QEMU = "qemu-x86_64"


@pytest.fixture(scope="module")
def image(released: Released) -> UnpackedImage:
    return container.unpacked(released.state, MODEL, released.image)


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


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first residues of the structure."""
    path = tmp_path_factory.mktemp("short") / "short.pdb"
    atoms = [line for line in STRUCTURE.read_text().splitlines() if line.startswith("ATOM")]
    path.write_text("".join(f"{line}\n" for line in atoms if int(line[22:26]) <= SHORT))
    return path


def ask(engine: Path, runner: str, way: str, width: str | None = None, structure: Path = STRUCTURE) -> str:
    return same_bits.WAYS[way](same_bits.question(engine, runner, structure, width))


def ask_on(
    emulator: str, processor: str, engine: Path, runner: str, *ways: str, structure: Path = STRUCTURE
) -> dict[str, str]:
    argv = [sys.executable, "-m", same_bits.__name__, str(engine), runner, str(structure), *ways]
    done = emulated(emulator, processor, argv, cwd=ROOT)
    return dict(line.split() for line in done.stdout.decode().splitlines())


def test_native_bits_depend_on_nothing_but_the_question(engine: Path, tmp_path: Path) -> None:
    """Batch, order, schedule, threads and vector width (none at all, too)."""
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
    }
    assert len(answers) == len(same_bits.WHOLE) + len(widths) + 1
    assert len(set(answers.values())) == 1, answers


@pytest.mark.parametrize("processor", PROCESSORS)
def test_native_bits_are_those_of_other_processors(engine: Path, emulator: str, short: Path, processor: str) -> None:
    there = ask_on(emulator, processor, engine, "native", "together", structure=short)["together"]
    assert there == ask(engine, "native", "together", structure=short)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_native_bits_of_a_whole_protein_are_those_of_other_processors(
    engine: Path, emulator: str, processor: str
) -> None:
    assert ask_on(emulator, processor, engine, "native", "together")["together"] == ask(engine, "native", "together")


def test_onnx_runtime_fails_the_same_checks(engine: Path, emulator: str, short: Path) -> None:
    """So its strict lane has batches of one, and its releases the class of their very processor."""
    for runner, same in (("native", True), ("onnxruntime", False)):
        assert (ask(engine, runner, "steps") == ask(engine, runner, "step_batch")) is same, runner
    if machine.widest() != machine.V4:
        pytest.skip("needs a processor with AVX-512, for another to differ; run there: make test-slow")
    there = ask_on(emulator, "Haswell", engine, "onnxruntime", "steps", structure=short)
    assert there["steps"] != ask(engine, "onnxruntime", "steps", structure=short)


@pytest.mark.parametrize("task", ["design", "score"])
@pytest.mark.usefixtures("emulator")
def test_what_was_served_is_made_again_on_other_processors(
    serving: Serving, address: Address, image: UnpackedImage, task: str, short: Path
) -> None:
    """By the image's own interpreter, libraries and code, in the sandbox of a replay."""
    ((prediction, _),) = by_json(address, task, {"structure": short.read_text(), "seed": 11})
    shard, sequence = Log(serving.log).find(prediction)
    entry, kept = shard.prediction(sequence), shard.payload(sequence)
    assert kept.input is not None
    assert kept.output_salt is not None
    assert shard.header.machine_class == machine.V3, "whatever this machine is"
    assert run_in_image(image, kept.input, [0]) == (machine.V3, [kept.output])
    for processor in PROCESSORS:
        machine_class, (output,) = run_in_image(image, kept.input, [0], cpu=processor)
        assert (machine_class, output) == (machine.V3, kept.output), processor
        assert commitment(kept.output_salt, output) == entry.output_commitment


def test_a_served_prediction_replays_without_a_word_about_the_machine(serving: Serving, address: Address) -> None:
    ((prediction, _),) = by_json(address, "score", {"structure": STRUCTURE.read_text(), "seed": 12})
    (verdict,) = json.loads(serving.lineage("replay", prediction, "--json").stdout)
    assert (verdict["same"], verdict["differences"], verdict["machine_class"]) == (True, [], machine.V3)


@pytest.mark.long
@pytest.mark.usefixtures("emulator")
def test_served_by_onnx_runtime_it_would_be_of_another_class(
    serving: Serving, address: Address, image: UnpackedImage, tmp_path: Path, short: Path
) -> None:
    """The same image but for one word of its contract. A replay names the class, and compares numbers if told to."""
    if machine.widest() != machine.V4:
        pytest.skip("needs a processor with AVX-512, for another to differ; run there: make test-slow")
    other = replace(image, folder=shutil.copytree(image.folder, tmp_path / "image", symlinks=True))
    path = other.rootfs / "opt/helix/model/model.toml"
    text = path.read_text().replace('runner = "proteinmpnn_model.native.runner:NativeRunner"', 'runner = "onnxruntime"')
    path.unlink()
    path.write_text(text)
    ((prediction, _),) = by_json(address, "score", {"structure": short.read_text(), "seed": 13})
    served = plan(Log(serving.log), prediction, ReleaseSources(trust=Trust.load(serving.released.state.trust)))
    here, (ours,) = run_in_image(other, served.input, [0])
    there, (theirs,) = run_in_image(other, served.input, [0], cpu="Haswell")
    assert (here, there) == (machine.V4, machine.V3)
    entry = replace(served.entry, output_commitment=commitment(served.output_salt, ours))
    there_served = replace(served, machine_class=here, stored_output=ours, entry=entry)
    outcomes = [judge(there_served, [], there, theirs, tolerance).outcome for tolerance in (None, 1e-4, 1e-12)]
    assert outcomes == ["other-machine-class", "within-tolerance", "differs"]
