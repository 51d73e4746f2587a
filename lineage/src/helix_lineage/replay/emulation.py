"""Another processor than this machine's: QEMU's user mode, for a replay on another machine class.

QEMU answers CPUID, but shows the machine's own /proc/cpuinfo; so the sandbox is given one that
fits. The image believes neither alone: it compares the class with what numpy finds by CPUID.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helix_lineage import process
from helix_lineage.errors import ReplayError

FOLDER = "/emulator"
"""Inside the sandbox."""
QEMU = "qemu-x86_64"
_LOADER = "ld-linux-x86-64.so.2"
_V3 = "fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
"""What /proc/cpuinfo calls the features of x86-64-v3; QEMU 7.2 emulates nothing beyond it."""


@contextmanager
def emulator(cpu: str | None) -> Iterator[tuple[list[str], list[str]]]:
    """Words for bubblewrap, and words that go before the command; none for the machine's own processor.

    The emulator and its libraries are bound at a place of their own: the image has none of them.
    Raises ReplayError for an unknown processor.
    """
    if cpu is None:
        yield [], []
        return
    process.require(QEMU, "apt-get install qemu-user")
    binary = Path(shutil.which(QEMU) or QEMU)
    try:
        process.run([binary, "-cpu", cpu, shutil.which("true") or "true"])
    except ReplayError as error:
        what = f"QEMU cannot be the processor {cpu!r}: {error.what}"
        raise ReplayError(what, where="--cpu", fix=f"{QEMU} -cpu help") from error
    with tempfile.TemporaryDirectory(prefix="helix-cpu-") as name:
        cpuinfo = Path(name) / "cpuinfo"
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: QEMU {cpu}\nflags\t\t: {_V3}\n\n")
        bind = ["--ro-bind", str(cpuinfo), "/proc/cpuinfo", "--dir", FOLDER]
        for library in _libraries(binary):
            bind += ["--ro-bind", str(library), f"{FOLDER}/{library.name}"]
        bind += ["--ro-bind", str(binary), f"{FOLDER}/{QEMU}"]
        yield bind, [f"{FOLDER}/{_LOADER}", "--library-path", FOLDER, f"{FOLDER}/{QEMU}", "-cpu", cpu]


def _libraries(binary: Path) -> list[Path]:
    """What the emulator is linked with, and the loader, which comes by its link's name."""
    listed = process.run(["ldd", binary]).decode()
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
