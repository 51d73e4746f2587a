from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helixserve import machine
from helixserve.errors import NotReadyError

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


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux; run: make test-fast on Linux")
def test_pinned_numpy_uses_no_code_beyond_the_class() -> None:
    program = (
        "from helixserve import machine; found = machine.pin_numpy()\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
        "beyond = [f for f in ('AVX512_ICL', 'AVX512_SPR') if features[f]]\n"
        "machine.confirm_numpy(found)\n"
        "print(found, features['X86_V4'], beyond, machine.pin_numpy() == found)"
    )
    answer = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    measured = machine.machine_class()
    assert answer.stdout.split() == [measured, str(measured == "x86-64-v4"), "[]", "True"]


def test_numpy_loaded_before_the_pin_is_refused() -> None:
    program = "import numpy; from helixserve import machine; machine.pin_numpy()"
    env = {name: value for name, value in os.environ.items() if name != "NPY_DISABLE_CPU_FEATURES"}
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False)
    assert answer.returncode != 0
    assert "NPY_DISABLE_CPU_FEATURES" in answer.stderr


@pytest.mark.parametrize(("claimed", "unpinned"), [("x86-64-v3", False), ("x86-64-v4", True)])
def test_a_class_that_numpy_does_not_run_as_is_refused(claimed: str, unpinned: bool) -> None:
    if machine.machine_class() != "x86-64-v4":
        pytest.skip("needs a processor with AVX-512, to claim less or use more; run there: make test-fast")
    program = f"from helixserve import machine; import numpy; machine.confirm_numpy({claimed!r})"
    env = {name: value for name, value in os.environ.items() if name != "NPY_DISABLE_CPU_FEATURES"}
    if not unpinned:
        env["NPY_DISABLE_CPU_FEATURES"] = "AVX512_ICL AVX512_SPR"
    beyond = "from numpy._core._multiarray_umath import __cpu_features__ as f; print(f['AVX512_ICL'])"
    more = subprocess.run([sys.executable, "-c", beyond], capture_output=True, text=True, env=env, check=True)
    if unpinned and more.stdout.strip() != "True":
        pytest.skip("numpy has no code beyond the class for this processor; run on a newer one: make test-fast")
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False)
    assert "does not run as" in answer.stderr
