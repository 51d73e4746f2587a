"""What decides about the model says the same on every kind of processor: each library's dispatch forced down.

The gate's rows, parity with upstream, the golden cases, sampling and the kernels, each kind in a
process of its own. `tests/end_to_end/test_processors.py` runs the same on emulated processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from helixserve.runners import machine
from tests.models.proteinmpnn import judging

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[3]
STRUCTURES = ("2n0n_M1.pdb", "2BEG.pdb")
"""A small one, and the one on which float32 is the noisiest; each has a golden case."""

KINDS: Mapping[str, Mapping[str, str]] = {
    "AVX512": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2,STRICT", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "DEFAULT": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NUMPY_WITHOUT": "X86_V3",
    },
}
"""What torch calls its dispatch → the environment that forces torch, MKL, oneDNN and numpy to it."""


@pytest.fixture(scope="module")
def found(artifacts: Path, weights: Path, data_folder: Path) -> Mapping[str, Any]:
    """What each kind measured; AVX-512 only where the processor has it."""
    kinds = [kind for kind in KINDS if kind != "AVX512" or machine.widest() == machine.V4]
    return {kind: _measured(KINDS[kind], artifacts, weights, data_folder) for kind in kinds}


def _measured(more: Mapping[str, str], *folders: Path) -> Any:
    argv = [sys.executable, "-m", "tests.models.proteinmpnn.decisions", *map(str, folders), *STRUCTURES]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, found: Mapping[str, Any]) -> Any:
    if request.param not in found:
        pytest.skip("needs a processor with AVX-512; run there: make test-torch")
    return found[request.param]


def test_each_library_ran_the_code_that_it_was_forced_to(found: Mapping[str, Any]) -> None:
    assert [one["dispatch"] for one in found.values()] == list(found)
    noise = [judging.reported(one) for one in found.values()]
    assert all(one != noise[0] for one in noise[1:]), "float32 is another function on each"


def test_every_judged_number_keeps_its_margin(kind: Any) -> None:
    assert judging.short(kind) == []


def test_what_is_judged_and_what_is_answered_is_the_same(kind: Any, found: Mapping[str, Any]) -> None:
    first = next(iter(found.values()))
    assert judging.judged(kind) == judging.judged(first)
    assert kind["answers"] == first["answers"]


def test_a_gate_that_judges_by_float32_is_noticed(found: Mapping[str, Any]) -> None:
    """The planted fault: what float32 gives has no margin, though a wide processor may pass it."""
    for name in ("AVX2", "DEFAULT"):
        assert judging.short(judging.by_float32(found[name]))


def test_golden_numbers_of_another_dispatch_are_noticed(kind: Any) -> None:
    """The planted fault: numbers that torch wrote in float32, with the code that this processor has."""
    assert judging.short({**kind, "golden": {"float64": kind["golden"]["float32"]}})
