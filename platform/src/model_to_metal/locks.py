"""Locks: which file of which distribution goes into a build, by name and SHA-256.

Takes requirement lists (the dependency groups of a model's `pyproject.toml`, and
`platform/nix/debs.in`), gives lock files that pip, Nix and people read alike: one line a
distribution, one file each, no address of any registry.

>>> line = "numpy==2.0.0 --hash=sha256:" + "0" * 64 + "  # numpy-2.0.0-py3-none-any.whl"
>>> parse(line)[0].version
'2.0.0'
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from model_to_metal.errors import LockError

PYTHON = (3, 11)
"""The Python of the base root filesystem, and of every lock."""
GLIBC = (2, 36)
"""The C library of Debian bookworm, whose .debs make the base."""

_LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=(?P<digest>sha256:[0-9a-f]{64})  # (?P<file>\S+)")
_DEB_LINE = re.compile(r"(?P<path>pool/main/\S+\.deb) (?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One distribution, as one file."""

    name: str
    """Normalised name (PEP 503)."""
    version: str
    """Exact version."""
    digest: str
    """`sha256:<64 hex>` of the file."""
    filename: str
    """Name of the wheel or source archive."""

    def line(self) -> str:
        """The pin as its line of a lock."""
        return f"{self.name}=={self.version} --hash={self.digest}  # {self.filename}"


@dataclass(frozen=True, slots=True, order=True)
class DebPin:
    """One .deb of Debian's `bookworm/main`."""

    path: str
    """Path below the mirror, for instance `pool/main/z/zlib/zlib1g_1_amd64.deb`."""
    digest: str
    """`sha256:<64 hex>` of the file, as apt's index has it."""

    @property
    def filename(self) -> str:
        return self.path.rsplit("/", 1)[1]

    @property
    def package(self) -> str:
        return self.filename.split("_", 1)[0]

    def line(self) -> str:
        """The pin as its line of a lock."""
        return f"{self.path} {self.digest}"


@dataclass(frozen=True, slots=True)
class Group:
    """A requirement list that becomes one lock."""

    requirements: tuple[str, ...]
    """Resolved with their dependencies."""
    alone: tuple[str, ...] = ()
    """Taken without their dependencies."""
    sources: tuple[str, ...] = ()
    """Taken as source archives, without dependencies; never built, only read from."""


def parse(text: str, *, where: str = "") -> tuple[Pin, ...]:
    """Read a Python lock. Raises LockError for any line that `render` would not have written."""
    pins = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise LockError(f"line {number} is no pin: {line!r}", where=where, fix="helix lock")
        pins.append(Pin(match["name"], match["version"], match["digest"], match["file"]))
    return _ordered(pins, where)


def parse_debs(text: str, *, where: str = "") -> tuple[DebPin, ...]:
    """Read a .deb lock. Raises LockError."""
    pins = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _DEB_LINE.fullmatch(line)
        if match is None:
            raise LockError(f"line {number} is no .deb: {line!r}", where=where, fix="helix lock --debs")
        pins.append(DebPin(match["path"], match["digest"]))
    return tuple(pins)


def render(pins: Iterable[Pin | DebPin], *, title: str) -> str:
    """The text of a lock: a comment that says what it is, then the pins, sorted."""
    lines = [f"# {title} Written by `helix lock`; do not edit."]
    return "\n".join(lines + [pin.line() for pin in sorted(pins)]) + "\n"


def read(path: Path) -> tuple[Pin, ...]:
    """Read a Python lock file. Raises LockError when it is absent or malformed."""
    return parse(_text(path, "helix lock"), where=str(path))


def read_debs(path: Path) -> tuple[DebPin, ...]:
    """Read a .deb lock file. Raises LockError when it is absent or malformed."""
    return parse_debs(_text(path, "helix lock --debs"), where=str(path))


def groups(model: Path) -> Mapping[str, Group]:
    """The locks that a model folder asks for, by path relative to it.

    They come from the `[dependency-groups]` of its `pyproject.toml`: `serve` and `build` are
    resolved; of `build-alone` the dependencies are left out; `data` and `data-sources` name
    the distributions whose files the data stage reads (the latter as source archives).
    Raises LockError.
    """
    path = model / "pyproject.toml"
    try:
        table: Any = tomllib.loads(_text(path, f"helix doctor # {path.name} is missing"))["dependency-groups"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise LockError(f"no readable [dependency-groups]: {error}", where=str(path)) from error

    def listed(name: str) -> tuple[str, ...]:
        found = table.get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise LockError(f"dependency group {name!r} is not a list of requirements", where=str(path))
        return tuple(found)

    locks = {
        "environment/serve.lock": Group(listed("serve")),
        "environment/build.lock": Group(listed("build"), alone=listed("build-alone")),
        "data/upstream.lock": Group((), alone=listed("data"), sources=listed("data-sources")),
    }
    return {name: group for name, group in locks.items() if group != Group(())}


def resolve(group: Group, *, keep: Sequence[Pin] = ()) -> tuple[Pin, ...]:
    """Lock a requirement list: newest versions that fit, or those of `keep` where they still fit.

    Asks the package index that pip and uv are set up for. Raises LockError.
    """
    pins: list[Pin] = []
    if group.requirements:
        versions = _versions(group.requirements, keep)
        pins += _files(versions)
    if group.alone:
        pins += _files(group.alone)
    if group.sources:
        pins += _files(group.sources, sources=True)
    return _ordered(sorted(pins), "")


def resolve_debs(packages: Sequence[str], index: str) -> tuple[DebPin, ...]:
    """Lock packages from the text of a Debian `Packages` index. Raises LockError when one is absent."""
    wanted = set(packages)
    found: dict[str, DebPin] = {}
    for paragraph in index.split("\n\n"):
        if not paragraph.startswith("Package: ") or paragraph[9:].split("\n", 1)[0] not in wanted:
            continue
        fields = dict(re.findall(r"^(Package|Filename|SHA256): (\S+)$", paragraph, re.MULTILINE))
        found[fields["Package"]] = DebPin(fields["Filename"], f"sha256:{fields['SHA256']}")
    if missing := sorted(wanted - set(found)):
        raise LockError(f"not in the index of bookworm/main: {', '.join(missing)}", fix="apt-get update")
    return tuple(sorted(found.values()))


def debian_index() -> str:
    """The `Packages` index of `bookworm/main`, from apt's own lists.

    `-security` and `-updates` are left out: what they offer moves away, what `main` has stays.
    Raises LockError when apt has no such list.
    """
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(FILENAME)", "Identifier: Packages", "Label: Debian",
         "Codename: bookworm", "Component: main", "Architecture: amd64"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    files = [line for line in targets.stdout.splitlines() if line]
    if targets.returncode or not files:
        raise LockError("apt knows no index of bookworm/main", where=targets.stderr.strip() or None, fix="apt-get update")
    answer = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", files[0]], capture_output=True, check=False)
    if answer.returncode:
        raise LockError("apt's index of bookworm/main cannot be read", where=files[0], fix="apt-get update")
    return answer.stdout.decode()


def requirements(text: str) -> tuple[str, ...]:
    """The entries of a list with `#` comments, for instance `debs.in`."""
    return tuple(entry for line in text.splitlines() if (entry := line.split("#", 1)[0].strip()))


def accepted_tags() -> tuple[Tag, ...]:
    """Wheel tags that the base runs, best first."""
    newest = GLIBC[1]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(newest, 4, -1)]
    older = {17: "manylinux2014_x86_64", 12: "manylinux2010_x86_64", 5: "manylinux1_x86_64"}
    for minor, legacy in older.items():
        platforms.insert(platforms.index(f"manylinux_2_{minor}_x86_64") + 1, legacy)
    platforms.append("linux_x86_64")
    interpreter = f"cp{PYTHON[0]}{PYTHON[1]}"
    return (*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, interpreter, platforms))


def best_wheel(filenames: Iterable[str]) -> str | None:
    """The wheel that pip would take on the base, or None when none of them runs there."""
    rank = {tag: place for place, tag in enumerate(accepted_tags())}
    best: tuple[int, str] | None = None
    for name in filenames:
        places = [rank[tag] for tag in parse_wheel_filename(name)[3] if tag in rank]
        if places and (best is None or (min(places), name) < best):
            best = (min(places), name)
    return best[1] if best else None


def _versions(wanted: Sequence[str], keep: Sequence[Pin]) -> list[str]:
    """`name==version` of everything that `wanted` needs."""
    # uv reads versions to keep from the file that it is told to write.
    text = _uv(wanted, "requirements.txt", before="".join(f"{pin.name}=={pin.version}\n" for pin in keep))
    return [entry for line in text.splitlines() if (entry := line.split(";")[0].strip()) and not entry.startswith("#")]


def _files(wanted: Sequence[str], *, sources: bool = False) -> list[Pin]:
    """One file for each of the exact requirements `wanted`, without dependencies."""
    options = ["--no-deps"]
    if sources:
        options += [f"--no-binary={Requirement(item).name}" for item in wanted]
    table = tomllib.loads(_uv(wanted, "pylock.toml", *options))
    pins = []
    for package in table.get("packages", []):
        offers = [package["sdist"]] if sources else package.get("wheels", [])
        by_name = {unquote(urlsplit(offer["url"]).path).rsplit("/", 1)[1]: offer for offer in offers}
        chosen = next(iter(by_name), None) if sources else best_wheel(by_name)
        if chosen is None:
            raise LockError(
                f"{package['name']} {package['version']} has no wheel for CPython {PYTHON[0]}.{PYTHON[1]} on x86-64 Linux"
            )
        digest = f"sha256:{by_name[chosen]['hashes']['sha256']}"
        pins.append(Pin(canonicalize_name(package["name"]), package["version"], digest, chosen))
    if len(pins) != len(wanted):
        raise LockError(f"{len(wanted)} requirements gave {len(pins)} files", fix="helix lock")
    return pins


def _uv(wanted: Sequence[str], form: str, *options: str, before: str = "") -> str:
    """Run `uv pip compile` on `wanted`; gives the text that it wrote. Raises LockError."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "wanted.in"), Path(folder, "pylock.toml" if form == "pylock.toml" else "out.txt")
        source.write_text("\n".join(wanted) + "\n")
        if before:
            output.write_text(before)
        binary = [] if any(option.startswith("--no-binary") for option in options) else ["--only-binary=:all:"]
        answer = subprocess.run(
            [find_uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--format", form,
             "--python-version", f"{PYTHON[0]}.{PYTHON[1]}", "--python-platform", f"x86_64-manylinux_2_{GLIBC[1]}",
             *binary, *options, str(source), "--output-file", str(output)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode:
            raise LockError(f"uv cannot resolve the requirements: {answer.stderr.strip()}", where=", ".join(wanted))
        return output.read_text()


def find_uv() -> str:
    """The uv beside this Python (the project's set-up puts it there), else the one on PATH. Raises LockError."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise LockError("uv is not installed", fix="make setup")
    return found


def _ordered(pins: Sequence[Pin], where: str) -> tuple[Pin, ...]:
    names = [pin.name for pin in pins]
    if names != sorted(set(names)):
        raise LockError("the pins are not sorted by name, or one name stands twice", where=where, fix="helix lock")
    return tuple(pins)


def _text(path: Path, fix: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise LockError(f"cannot read the file: {error.strerror}", where=str(path), fix=fix) from error
