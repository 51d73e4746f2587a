"""What decides about the model says the same on emulated processors of other makers: torch, MKL, oneDNN and all.

The build environment's own interpreter under `qemu-x86_64`, whose CPUID decides what each library
runs. `tests/models/proteinmpnn/test_decisions.py` forces the dispatch of the real processor down.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.paths import State
from helix_lineage.replay.emulation import emulator
from helixserve.runners import machine
from model_to_metal.hermetic import nix
from proteinmpnn_model import data
from tests.end_to_end.conftest import MODEL, ROOT
from tests.models.proteinmpnn import judging

PROCESSORS = ("Haswell", "EPYC")
STRUCTURE = "2n0n_M1.pdb"
"""Ten residues with a gap and an insertion code, and a golden case: an emulated product takes 100 ns."""


@dataclass(frozen=True)
class Laboratory:
    """The build environment, and what is measured in it."""

    store: nix.NixStore
    environment: str
    folders: Mapping[Path, str]

    def measure(self, processor: str | None) -> Any:
        """What `decisions` measures on that processor, or on this one."""
        sources = [f"/checkout/{folder}" for folder in ("lineage/src", "platform/src", f"models/{MODEL}/src")]
        with emulator(processor) as (bind, before):
            argv = nix.environment_command(
                self.store,
                self.environment,
                # QEMU asks no PATH.
                [*before, f"{self.environment}/bin/python", "-m", "tests.models.proteinmpnn.decisions",
                 "/engine", "/weights", "/data", STRUCTURE],
                read=self.folders,
                variables={
                    "PYTHONPATH": ":".join([*sources, f"{self.environment}/site-packages"]), "OMP_NUM_THREADS": "1"
                },
                folder="/checkout",
            )  # fmt: skip
            at = argv.index("--chdir")
            done = subprocess.run([*argv[:at], *bind, *argv[at:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("needs qemu-x86_64 to emulate other processors; run: make setup-tests")
    state, folder = State.find(ROOT), tmp_path_factory.mktemp("data")
    for name in data.FILES:
        data.extract(name, state.downloads / "upstream", folder / name)
    environment, weights, engine = (
        nix.build(f"{MODEL}-{name}", ROOT, state) for name in ("build-env", "weights", "engine")
    )
    folders = {ROOT: "/checkout", weights: "/weights", engine: "/engine", folder: "/data"}
    return Laboratory(nix.NixStore.of(state), f"{nix.PREFIX}/{environment.name}", folders)


@pytest.fixture(scope="module")
def here(laboratory: Laboratory) -> Any:
    return laboratory.measure(None)


@pytest.fixture(scope="module", params=PROCESSORS)
def there(request: pytest.FixtureRequest, laboratory: Laboratory) -> Any:
    return laboratory.measure(request.param)


def test_gate_parity_golden_cases_kernels_and_sampling_say_the_same_there(here: Any, there: Any) -> None:
    assert (there["dispatch"], there["level"]) == ("AVX2", machine.V3)
    assert judging.short(there) == judging.short(here) == []
    assert judging.judged(there) == judging.judged(here)
    assert there["answers"] == here["answers"]


def test_torch_in_float32_says_something_else_there(here: Any, there: Any) -> None:
    """So the comparison bites: nothing may be judged by that."""
    if here["dispatch"] != "AVX512":
        pytest.skip("needs a processor with AVX-512, for another to differ; run there: make test-slow")
    assert judging.reported(there) != judging.reported(here)
