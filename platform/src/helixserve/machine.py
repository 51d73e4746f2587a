"""The machine class: the CPU features that can change the bits of an answer.

ONNX Runtime, numpy and libm choose code by CPU features. The psABI levels x86-64-v3 (AVX2,
FMA) and x86-64-v4 (AVX-512 F, BW, CD, DQ, VL) are the ones that change fp32 bits; numpy also
has code beyond v4, which `pin_numpy` turns off, so that one class computes one way.

>>> machine_class(frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split()))
'x86-64-v3'
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from helixserve.errors import NotReadyError

_V3 = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])

_BEYOND = {"x86-64-v4": "AVX512_ICL AVX512_SPR", "x86-64-v3": "X86_V4 AVX512_ICL AVX512_SPR"}
"""Machine class → numpy's dispatch targets that exceed it (numpy 2.4's names)."""

_VARIABLE = "NPY_DISABLE_CPU_FEATURES"


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags that every processor of a `/proc/cpuinfo` has."""
    lines = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags")]
    return frozenset.intersection(*map(frozenset, lines)) if lines else frozenset()


def machine_class(flags: frozenset[str] | None = None) -> str:
    """The class of this machine, or of one with the CPU `flags` given. Raises NotReadyError below x86-64-v3."""
    measured = (
        cpu_flags(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")) if flags is None else flags
    )
    if measured >= _V4:
        return "x86-64-v4"
    if measured >= _V3:
        return "x86-64-v3"
    absent = ", ".join(sorted(_V3 - measured))
    raise NotReadyError(
        f"this processor is below x86-64-v3: it lacks {absent}",
        where="machine_class",
        fix="use a processor with AVX2 and FMA",
    )


def pin_numpy() -> str:
    """Keep numpy to the code of this machine's class; gives the class.

    Must run before numpy is imported, in this process or a parent of it; raises NotReadyError
    when numpy is already loaded unpinned.
    """
    found = machine_class()
    if "numpy" in sys.modules and os.environ.get(_VARIABLE) != _BEYOND[found]:
        raise NotReadyError("numpy was loaded before its CPU dispatch was pinned", where=_VARIABLE)
    os.environ[_VARIABLE] = _BEYOND[found]
    return found


def confirm_numpy(found: str) -> None:
    """The numpy that is loaded runs the code of class `found`, by its own CPUID. Raises NotReadyError.

    An emulated processor may show the host's /proc/cpuinfo; a class that is only claimed must not be recorded.
    """
    # numpy publishes its CPU features nowhere else; `numpy.testing` reads them here too.
    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    beyond = [name for name in _BEYOND[found].split() if features.get(name)]
    if features["X86_V4"] != (found == "x86-64-v4") or beyond:
        why = ", ".join(beyond) or "its CPUID differs"
        raise NotReadyError(f"numpy does not run as {found}: {why}", where="machine_class")
