from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helixserve.errors import NotReadyError
from helixserve.runners import machine

V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = V3 + " avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(("flags", "expected"), [(V3, "x86-64-v3"), (V4, "x86-64-v4"), (V4 + " amx_tile", "x86-64-v4")])
def test_the_class_follows_the_flags(flags: str, expected: str) -> None:
    assert machine.machine_class(frozenset(flags.split())) == expected


def test_half_of_avx512_is_not_the_higher_class() -> None:
    assert machine.machine_class(frozenset((V3 + " avx512f").split())) == "x86-64-v3"


def test_an_older_processor_is_refused_naming_what_it_lacks() -> None:
    with pytest.raises(NotReadyError, match="avx2"):
        machine.machine_class(frozenset(V3.replace("avx2", "").split()))


def test_flags_are_those_that_every_processor_has() -> None:
    assert machine.cpu_flags("processor : 0\nflags : a b c\nprocessor : 1\nflags : b c d\n") == {"b", "c"}


PIN = "NPY_DISABLE_CPU_FEATURES"
UNPINNED = {name: value for name, value in os.environ.items() if name != PIN}


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: numpy takes its dispatch from the environment, once."""
    argv = [sys.executable, "-W", "error", "-c", f"from helixserve.runners import machine\n{program}"]
    return subprocess.run(argv, capture_output=True, text=True, env=UNPINNED | environment, check=False)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux; run: make test-fast on Linux")
def test_pinned_numpy_runs_the_code_of_the_lowest_class() -> None:
    answer = run(
        "machine.pin_numpy()\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
        "beyond = [f for f in ('X86_V4', 'AVX512_ICL', 'AVX512_SPR') if features[f]]\n"
        "machine.pin_numpy()\n"
        "print(features['X86_V3'], beyond, machine.confirmed_class(None), machine.widest())"
    )
    measured = machine.machine_class()
    assert answer.stdout.split() == ["True", "[]", measured, measured], answer.stderr


def test_a_runner_with_the_same_bits_everywhere_gives_its_class_on_every_machine() -> None:
    program = "machine.pin_numpy(); import numpy; print(machine.confirmed_class(machine.V3))"
    assert run(program).stdout.split() == ["x86-64-v3"]


def test_numpy_loaded_before_the_pin_is_refused() -> None:
    answer = run("import numpy; machine.pin_numpy()")
    assert answer.returncode != 0
    assert PIN in answer.stderr


@pytest.mark.parametrize("promised", [machine.V3, None])
def test_a_numpy_that_is_not_pinned_is_no_machine_of_the_class(promised: str | None) -> None:
    if machine.machine_class() != "x86-64-v4":
        pytest.skip("needs a processor with AVX-512, for numpy to have more code; run there: make test-fast")
    answer = run(f"import numpy; machine.confirmed_class({promised!r})")
    assert "numpy runs code beyond x86-64-v3: X86_V4" in answer.stderr


def test_a_class_that_only_the_system_claims_is_refused() -> None:
    """As under an emulator that shows the host's /proc/cpuinfo. The bits of native answers don't depend on it."""
    program = (
        "machine.pin_numpy(); import numpy; machine.machine_class = lambda: {claimed!r}\n"
        "print(machine.confirmed_class(machine.V3)); machine.confirmed_class(None)"
    )
    claimed = "x86-64-v3" if machine.machine_class() == "x86-64-v4" else "x86-64-v4"
    answer = run(program.format(claimed=claimed))
    assert answer.stdout.split() == ["x86-64-v3"]
    assert f"/proc/cpuinfo says {claimed}, but CPUID says" in answer.stderr
