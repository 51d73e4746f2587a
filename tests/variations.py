"""Runs a program in pairs of surroundings that differ in everything that must not matter, and compares its files.

The variations are reprotest's: environment variables, build path, home, locale, time zone, PATH, umask, kernel name
(setarch), CPUs (taskset), order of folders' entries (disorderfs), time (faketime), user and group (a user namespace),
host name (a UTS namespace), address space layout; and Python's hash seed. A pair differs in all of them at once.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

TOOLS = ("unshare", "taskset", "setarch", "faketime")
_ZONES = ("Pacific/Kiritimati", "America/Anchorage", "Asia/Kathmandu", "UTC", "Australia/Lord_Howe", "Etc/GMT+12")

_INSIDE = """\
set -e
# faketime names a semaphore by process number, which other pairs have too.
mount -t tmpfs tmpfs /dev/shm
if [ -n "$1" ]; then
  # In the foreground: this process namespace ends when the command does, and takes it along.
  disorderfs -f -q --multi-user=yes --sort-dirents=yes --reverse-dirents="$1" "$2" "$3" > /dev/null 2>&1 &
  until mountpoint -q "$3"; do sleep 0.02; done
fi
cd "$3"
hostname "$4"
umask "$5"
shift 5
"$@"
"""


def absent() -> str | None:
    """Why this machine cannot run pairs, or None."""
    if os.geteuid() != 0:
        return "other users and host names need root; run: sudo make test-slow"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} absent; run: make setup-tests" if missing else None


@dataclass(frozen=True)
class Setting:
    """One of the two surroundings of a pair."""

    name: str
    env: dict[str, str]
    """LC_ALL, TZ, PATH, PYTHONHASHSEED, HOME's name and what nobody asked for."""
    path: str
    """Name of the folder that the source is seen in."""
    umask: str
    kernel: tuple[str, ...]
    """Options of setarch: another kernel name, no address space randomisation."""
    cpus: str
    reversed: bool
    """Order of folders' entries."""
    time: str
    """As faketime takes it."""
    user: int
    group: int
    host: str


def pair(seed: int) -> tuple[Setting, Setting]:
    """Two settings with no value in common; another seed gives other values."""
    draw = random.Random(seed)
    zones, users = draw.sample(_ZONES, 2), draw.sample(range(20_000, 60_000), 4)
    cpus = sorted(os.sched_getaffinity(0))
    path = ["/usr/bin:/bin:/usr/sbin:/sbin", f"/sbin:/usr/sbin:/bin:/usr/bin:/nowhere/{seed}"]
    made = []
    for side in (0, 1):
        env = {
            "LC_ALL": ("C", "C.UTF-8")[side],
            "USER": ("somebody", "else")[side],  # Nix asks who it is, and a number has no name
            "LOGNAME": ("somebody", "else")[side],
            "LANGUAGE": ("de:fr", "et_EE")[side],
            "TZ": zones[side],
            "PATH": path[side],
            "PYTHONHASHSEED": str(draw.randrange(1, 2**32 - 1)),
            "SOURCE_DATE_EPOCH": str(draw.randrange(2**31)),
            f"CAPTURED_{draw.randrange(1000)}": f"captured {draw.random()}",
        }
        made.append(
            Setting(
                name=f"{seed}{'ab'[side]}",
                env=env,
                path="/".join(["p", "deeper" * side, f"{draw.randrange(10**6)}"]),
                umask=("022", "077")[side],
                kernel=(("--uname-2.6", "--addr-no-randomize") if side else ()),
                cpus=str(cpus[0]) if side else ",".join(map(str, cpus)),
                reversed=bool(side),
                time=f"{draw.randrange(10, 4000):+d}d",
                user=users[side],
                group=users[2 + side],
                host=f"host-{draw.randrange(10**6)}",
            )
        )
    if draw.random() < 0.5:
        made.reverse()
    return made[0], made[1]


@dataclass(frozen=True)
class Mismatch:
    """A file that is not the same."""

    file: str
    offset: int | None
    """Of the first differing byte; None where one side lacks the file."""
    detail: str

    def __str__(self) -> str:
        at = "" if self.offset is None else f" at byte {self.offset}"
        return f"{self.file}{at}: {self.detail}"


def compare(one: Path, other: Path) -> list[Mismatch]:
    """Every file that differs between two folders, by name."""
    sides = [
        {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in (one, other)
    ]
    found = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        left, right = (side.get(name) for side in sides)
        if left is None or right is None:
            found.append(Mismatch(name, None, f"only {'the second' if left is None else 'the first'} has it"))
        elif left != right:
            at = next(i for i, (a, b) in enumerate(zip_longest(left, right)) if a != b)
            here = [repr(side[max(0, at - 20) : at + 40]) for side in (left, right)]
            found.append(Mismatch(name, at, f"{here[0]} and {here[1]}"))
    return found


def order_by() -> str:
    """How folders' entries are put in another order here."""
    fuse = shutil.which("disorderfs") is not None and Path("/dev/fuse").exists()
    return "disorderfs" if fuse else "the order of creation"


def check(
    program: Sequence[str], source: Path, seeds: Sequence[int], *, python_path: Sequence[str] = (), at_once: int = 2
) -> dict[int, list[Mismatch]]:
    """Run `program` (Python's arguments and one more: an empty output folder) in a pair of settings a seed.

    It runs in the source folder, seen read-only at another path each time. `python_path`: folders below the source.
    Gives the mismatches of each pair; every pair that has none gave the same bytes.
    """
    with _work() as work, ThreadPoolExecutor(at_once) as pool:
        settings = [setting for seed in seeds for setting in pair(seed)]
        outputs = list(pool.map(lambda setting: _run(program, source, setting, python_path, work), settings))
        for output in outputs:
            assert any(output.iterdir()), "the program wrote nothing, so nothing was compared"
        return {seed: compare(*outputs[2 * n : 2 * n + 2]) for n, seed in enumerate(seeds)}


@contextmanager
def _work() -> Iterator[Path]:
    """A folder of its own, with a short path; without FUSE on a file system that lists by the order of creation."""
    with tempfile.TemporaryDirectory(prefix="helix-vary-") as name:
        if order_by() == "disorderfs":
            yield Path(name)
            return
        # ext4 lists by hashes of names, in whatever order they were made.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def _run(program: Sequence[str], source: Path, setting: Setting, python_path: Sequence[str], work: Path) -> Path:
    """Run the program in one setting; gives its output folder."""
    here = work / setting.name
    seen, home, output, temporary = (here / part for part in (setting.path, "home", "output", "temporary"))
    for folder in (seen, home, output, temporary):
        folder.mkdir(parents=True)
    by_fuse = order_by() == "disorderfs"
    if not by_fuse:
        _copy(source, seen, setting.reversed)
    env = {**setting.env, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    if python_path:
        env["PYTHONPATH"] = ":".join(str(seen / folder) for folder in python_path)
    words = [
        "unshare",
        "--uts",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        _INSIDE,
        "sh",
    ]
    words += [("yes" if setting.reversed else "no") if by_fuse else "", str(source), str(seen)]
    words += [setting.host, setting.umask]
    words += ["taskset", "--cpu-list", setting.cpus, "setarch", "x86_64", *setting.kernel]
    # Another user by a user namespace: the interpreter may lie where only its owner may go.
    words += ["unshare", "--user", f"--map-user={setting.user}", f"--map-group={setting.group}"]
    words += ["env", "-i", *(f"{name}={value}" for name, value in env.items())]
    words += ["/usr/bin/faketime", "-f", setting.time, sys.executable, *program, str(output)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, f"{setting}\n{done.stdout}\n{done.stderr}"
    return output


def _copy(source: Path, target: Path, backwards: bool) -> None:
    """Copy with entries made in order or in reverse, where there is no FUSE to show them so."""
    for path in sorted(source.iterdir(), reverse=backwards):
        if path.is_dir() and not path.is_symlink():
            (target / path.name).mkdir()
            _copy(path, target / path.name, backwards)
        else:
            shutil.copy2(path, target / path.name, follow_symlinks=False)
