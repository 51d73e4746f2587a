"""The machine class: the CPU features that can change the bits of an answer.

ONNX Runtime and numpy choose code by CPU features. The psABI levels x86-64-v3 (AVX2, FMA) and
x86-64-v4 (AVX-512 F, BW, CD, DQ, VL) are the ones that change fp32 bits. numpy is held to its code
for v3 everywhere (`pin_numpy`). A runner whose kernels give the same bits at both levels says so
(`Runner.machine_class`): the class of its answers is v3, whatever the processor. libm has no code
beyond v3.

>>> machine_class(frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split()))
'x86-64-v3'
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from helixserve.errors import NotReadyError

V3, V4 = "x86-64-v3", "x86-64-v4"

_V3 = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])

_BEYOND = ("X86_V4", "AVX512_ICL", "AVX512_SPR")
"""numpy's dispatch targets that exceed v3 (numpy 2.4's names)."""

_WIDE = ("AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512VL")
"""What v4 adds, as numpy names what CPUID says."""

_VARIABLE = "NPY_DISABLE_CPU_FEATURES"


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags that every processor of a `/proc/cpuinfo` has."""
    lines = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags")]
    return frozenset.intersection(*map(frozenset, lines)) if lines else frozenset()


def machine_class(flags: frozenset[str] | None = None) -> str:
    """The level of this processor, or of one with the CPU `flags` given. Raises NotReadyError below x86-64-v3."""
    measured = (
        cpu_flags(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")) if flags is None else flags
    )
    if measured >= _V4:
        return V4
    if measured >= _V3:
        return V3
    absent = ", ".join(sorted(_V3 - measured))
    raise NotReadyError(
        f"this processor is below x86-64-v3: it lacks {absent}",
        where="machine_class",
        fix="use a processor with AVX2 and FMA",
    )


def pin_numpy() -> None:
    """Keep numpy to its code for x86-64-v3.

    Must run before numpy is imported, in this process or a parent of it; raises NotReadyError
    when numpy is already loaded unpinned, or on a processor below x86-64-v3.
    """
    machine_class()
    wanted = " ".join(_BEYOND)
    if "numpy" in sys.modules and os.environ.get(_VARIABLE) != wanted:
        raise NotReadyError("numpy was loaded before its CPU dispatch was pinned", where=_VARIABLE)
    os.environ[_VARIABLE] = wanted


def widest() -> str:
    """The level of this processor by its own CPUID, which an emulated one shows truly, unlike /proc/cpuinfo."""
    features = _features()
    return V4 if all(features[name] for name in _WIDE) else V3


def confirmed_class(promised: str | None) -> str:
    """The class of machines that give the bits of this one: what is recorded.

    `promised` is the runner's own `machine_class`; without one the bits are the very processor's.
    Raises NotReadyError when the numpy that is loaded is not pinned, and where a class that the
    bits depend on is claimed by /proc/cpuinfo, but not by CPUID.
    """
    features = _features()
    if beyond := [name for name in _BEYOND if features.get(name)]:
        raise NotReadyError(f"numpy runs code beyond x86-64-v3: {', '.join(beyond)}", where=_VARIABLE)
    if promised is not None:
        return promised
    claimed, found = machine_class(), widest()
    if claimed != found:
        raise NotReadyError(f"/proc/cpuinfo says {claimed}, but CPUID says {found}", where="machine_class")
    return found


def _features() -> dict[str, bool]:
    # numpy publishes its CPU features nowhere else; `numpy.testing` reads them here too.
    found: dict[str, bool] = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    return found
