"""A sandbox for one stage: bubblewrap with no network, read-only inputs and one writable folder.

`command` is pure: it takes what may be seen and gives the argument list; `run` starts it.
Inside, a stage sees the machine's /usr (or the Nix-built environment at /nix), its inputs
under /input/<role>, an empty /output and a private /tmp, and nothing else of the machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helix_lineage.process import USER
from model_to_metal.errors import SandboxError
from model_to_metal.host import process

TEMPORARY = "/tmp"  # noqa: S108  # inside the sandbox, a file system of its own

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/alternatives", "/etc/ld.so.cache")
"""What a program of the machine itself needs; a link is given as the same link."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a sandboxed program may see."""

    read_only: Mapping[str, Path] = field(default_factory=dict)
    """Path inside → path outside."""
    writable: Mapping[str, Path] = field(default_factory=dict)
    """Path inside → path outside."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment; nothing is inherited."""
    system: bool = True
    """Whether the machine's own programs and libraries are visible."""
    cwd: str = TEMPORARY


def command(sandbox: Sandbox, argv: Sequence[str]) -> list[str]:
    """The bubblewrap command line that runs `argv` in the sandbox."""
    words = [
        "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--uid", str(USER), "--gid", str(USER), "--hostname", "helix",
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", TEMPORARY, "--chdir", sandbox.cwd,
    ]  # fmt: skip
    for path in map(Path, SYSTEM if sandbox.system else ()):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    # Outer folders first, or an inner one would be hidden by the outer one's mount.
    for inside, outside in sorted(sandbox.read_only.items()):
        words += ["--ro-bind", str(outside), inside]
    for inside, outside in sorted(sandbox.writable.items()):
        words += ["--bind", str(outside), inside]
    for name, value in sorted(sandbox.env.items()):
        words += ["--setenv", name, value]
    return [bubblewrap(), *words, "--", *argv]


def run(sandbox: Sandbox, argv: Sequence[str], *, timeout_s: float | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` in the sandbox to its end; its exit status is an answer.

    Raises SandboxError when bubblewrap is absent, a path to bind does not exist, or the
    machine forbids sandboxes.
    """
    for outside in (*sandbox.read_only.values(), *sandbox.writable.values()):
        if not outside.exists():
            raise SandboxError("the sandbox needs a path that does not exist", where=str(outside))
    done = process.attempt(command(sandbox, argv), timeout_s=timeout_s)
    if done.returncode and done.stderr.startswith(b"bwrap: "):
        raise SandboxError(
            "the sandbox could not start", fix="helix doctor", raw=done.stderr.decode(errors="replace").strip()
        )
    return done


def bubblewrap() -> str:
    """Where bubblewrap lies. Raises SandboxError when it is not installed."""
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError("bubblewrap is not installed", fix="helix doctor")
    return found
