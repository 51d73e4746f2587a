"""What a checkout needs of its machine: what is there, what is missing, and what mends it.

Takes a checkout and its state; looks, changes nothing, uses no network. Gives one `Diagnosis`
a need.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.errors import HelixError
from helix_lineage.formats.canonical import Json
from helix_lineage.paths import State
from helixserve.errors import HelixServeError
from model_to_metal.errors import PipelineError
from model_to_metal.hermetic import fetch, nix
from model_to_metal.host import process, processor, sandbox, tools
from model_to_metal.host.checkout import Checkout
from model_to_metal.supply_chain import keys

PROGRAMS = ("git", "nix", "bwrap", "runc", "umoci", "skopeo")
"""Each says its version when asked with --version."""

DISK_GB = 20
"""What a checkout takes in all: 12 GB lie under `.helix` after `make demo` (measured), the rest is room for what is
made twice and thrown away. README says the same figure."""
MEMORY_GB = 6


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One need, met or not."""

    name: str
    met: bool
    detail: str
    fix: str | None = None
    """The command that mends it."""
    notes: tuple[str, ...] = ()
    """What it means, a sentence each."""
    facts: Mapping[str, Json] | None = None
    """The same for programs."""

    def to_json(self) -> dict[str, Json]:
        """As `--json` prints it."""
        facts = dict(self.facts) if self.facts is not None else None
        return {
            "name": self.name, "met": self.met, "detail": self.detail, "fix": self.fix,
            "notes": list(self.notes), "facts": facts,
        }  # fmt: skip


def examine(checkout: Checkout, state: State) -> list[Diagnosis]:
    """Everything, in the order in which it is needed."""
    found = [_python(), *map(_program, PROGRAMS), _sandbox()]
    found += [_tool(name, state) for name in tools.NEEDED]
    found += [_asked("downloads", "helix fetch", lambda: _fetched(checkout, state))]
    found += [_asked("signing key", "helix keys init", lambda: f"{keys.signer(state).key_id}")]
    found += [_processor(), _disk(state.root), _memory(Path("/proc/meminfo").read_text())]
    return found


def _python() -> Diagnosis:
    version = ".".join(map(str, sys.version_info[:3]))
    return Diagnosis("python", sys.version_info[:2] == (3, 11), f"{version} at {sys.prefix}", "make setup")


def _program(name: str) -> Diagnosis:
    # sbin is not on every user's PATH, and Debian's runc lies there.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        return Diagnosis(name, False, "not installed", "make setup")
    said = process.attempt([path, "--version"], timeout_s=30).stdout.decode(errors="replace").splitlines()
    return Diagnosis(name, True, said[0].strip() if said else path)


def _sandbox() -> Diagnosis:
    try:
        done = sandbox.run(sandbox.Sandbox(), ["/usr/bin/true"], timeout_s=30)
    except PipelineError as error:
        return Diagnosis("sandbox", False, error.what, "sysctl -w kernel.unprivileged_userns_clone=1")
    return Diagnosis("sandbox", done.returncode == 0, "bubblewrap starts one", "make setup")


def _tool(name: str, state: State) -> Diagnosis:
    built = tools.is_built(tools.declared(name), state)
    return Diagnosis(name, built, str(state.tools / name) if built else "not built", f"helix tools build {name}")


def _fetched(checkout: Checkout, state: State) -> str:
    files = fetch.locked_files(checkout.root)
    valid = nix.NixStore.of(state).valid(file.store_path for file in files)
    absent = [file.filename for file in files if file.store_path not in valid]
    if absent:
        raise PipelineError(f"{len(absent)} of {len(files)} locked files are not fetched, for instance {absent[0]}")
    return f"all {len(files)} locked files are in the Nix store"


def _asked(name: str, fix: str | None, ask: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(name, True, ask())
    except HelixError as error:
        return Diagnosis(name, False, error.what, error.fix or fix)


def _processor() -> Diagnosis:
    try:
        here = processor.this()
    except HelixServeError as error:
        return Diagnosis("processor", False, error.what, error.fix)
    return Diagnosis("processor", True, here.summary, notes=here.notes, facts=here.to_json())


def _disk(root: Path) -> Diagnosis:
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free, used = shutil.disk_usage(place).free / 1e9, _taken(root) / 1e9
    lacking = DISK_GB - used - free
    fix = None if lacking <= 0 else f"free {lacking:.0f} GB at {place}"
    return Diagnosis(
        "disk", lacking <= 0, f"{free:.0f} GB free, {used:.0f} GB used by .helix; {DISK_GB} GB wanted", fix
    )


def _taken(root: Path) -> int:
    """Bytes that the state takes now."""
    if not root.is_dir():
        return 0
    # A file may go while it is counted; what was counted is said all the same.
    said = process.attempt(["du", "--summarize", "--block-size=1", root], timeout_s=120).stdout.split()
    return int(said[0]) if said and said[0].isdigit() else 0


def _memory(meminfo: str) -> Diagnosis:
    total = next(int(line.split()[1]) / 1e6 for line in meminfo.splitlines() if line.startswith("MemTotal:"))
    cores = len(os.sched_getaffinity(0))
    return Diagnosis("memory", total >= MEMORY_GB, f"{total:.0f} GB, {cores} cores; {MEMORY_GB} GB wanted")
