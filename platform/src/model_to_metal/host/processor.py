"""What this machine's processor means for the bits and the speed of answers.

Takes what /proc/cpuinfo and CPUID say; gives a `Processor`, which `helix doctor` shows. The rules
themselves are `helixserve.runners.machine`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from helix_lineage.formats.canonical import Json
from helixserve.runners import machine

CPUINFO = Path("/proc/cpuinfo")
_VECTORS = {machine.V3: "AVX2", machine.V4: "AVX-512"}
_GAIN = "which took 0.5 to 0.6 of the AVX2 ones' time on an Intel Xeon (`make bench` measures here)"


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor that the kernels run on."""

    name: str
    machine_class: str
    """The level that /proc/cpuinfo claims."""
    kernels: str
    """The level of the native kernels that run: what CPUID says."""

    @property
    def summary(self) -> str:
        """Name, class and vectors."""
        return f"{self.name}, machine class {self.machine_class} ({_VECTORS[self.kernels]} kernels)"

    @property
    def notes(self) -> tuple[str, ...]:
        """What that means, a sentence each."""
        native = (
            f"bits: what the native runner answers has the same bytes on every {machine.V3} machine, "
            "so any such prediction replays here to the same bytes"
        )
        if self.machine_class == self.kernels:
            other = (
                f"bits: what ONNX Runtime answers has the bytes of class {self.machine_class}; "
                "a replay on another class compares numbers (helix lineage replay ID --tolerance)"
            )
        else:
            other = (
                f"bits: /proc/cpuinfo claims {self.machine_class}, but CPUID says {self.kernels}, as on an emulated "
                "processor; ONNX Runtime's answers are not served here"
            )
        if self.kernels == machine.V4:
            speed = f"speed: the AVX-512 kernels run, {_GAIN}"
        else:
            speed = f"speed: the AVX2 kernels run, not the AVX-512 ones, {_GAIN}"
        return native, other, speed

    def to_json(self) -> dict[str, Json]:
        """As `--json` prints it: for each runner, the class of machines on which its answers have the same bytes."""
        return {
            "name": self.name,
            "machine_class": self.machine_class,
            "kernels": self.kernels,
            "same_bytes": {
                "native": machine.V3,
                "onnxruntime": self.machine_class if self.machine_class == self.kernels else None,
            },
        }


def this() -> Processor:
    """The processor of this machine. Raises NotReadyError below x86-64-v3."""
    text = CPUINFO.read_text(encoding="ascii", errors="replace")
    return Processor(name(text), machine.machine_class(machine.cpu_flags(text)), machine.widest())


def name(cpuinfo: str) -> str:
    """What a `/proc/cpuinfo` calls the first processor.

    >>> name("processor : 0\\nmodel name : AMD EPYC\\n")
    'AMD EPYC'
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return "unnamed processor"
