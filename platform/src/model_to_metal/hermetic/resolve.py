"""Finds what goes into the locks: which versions fit together, and which file of each is used.

Takes requirement lists (the dependency groups of a model's `pyproject.toml`, `requirements/host.in`
and `platform/nix/debs.in`), gives pins. Asks the package index that uv is set up for, and apt's own
lists; writes nothing but the lock files.

>>> best_wheel(["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux2014_x86_64.whl", "a-1-cp311-cp311-win_amd64.whl"])
'a-1-cp311-cp311-manylinux2014_x86_64.whl'
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from helix_lineage.paths import State
from model_to_metal.errors import LockError, PipelineError
from model_to_metal.hermetic import fetch, nix
from model_to_metal.hermetic.locks import (
    DebPin,
    Group,
    Pin,
    groups,
    ordered,
    read,
    render,
    render_lines,
    requirements,
)
from model_to_metal.host import process

PYTHON = (3, 11)
"""The Python of the base root filesystem, and of every lock."""
GLIBC = (2, 36)
"""The C library of Debian bookworm, whose .debs make the base."""

SEED_TITLE = "The folder bin/busybox of busybox-static in debs.lock, by its Nix archive."


def lock_model(folder: Path, *, upgrade: bool = False) -> dict[Path, bool]:
    """Write every lock of a model folder; gives each lock's path and whether it changed. Raises LockError."""
    titles = {
        "environment/serve.lock": f"What the image of {folder.name} holds.",
        "environment/build.lock": f"What {folder.name} is imported, exported and judged with.",
        "data/upstream.lock": f"What the data of {folder.name} comes out of.",
    }
    return {
        folder / name: _write(folder / name, resolve(group, keep=_kept(folder / name, upgrade)), titles[name])
        for name, group in groups(folder).items()
    }


def lock_host(checkout: Path, *, upgrade: bool = False) -> dict[Path, bool]:
    """Write `requirements/host.lock` from `host.in`; gives as `lock_model`. Raises LockError."""
    wanted, path = checkout / "requirements/host.in", checkout / "requirements/host.lock"
    group = Group(requirements(wanted.read_text()), buildable=True)
    return {path: _write(path, resolve(group, keep=_kept(path, upgrade)), "The environment of the helix command.")}


def lock_debs(checkout: Path, state: State) -> dict[Path, bool]:
    """Write `debs.lock` and `seed.lock` (which fetches the seed's package); gives as `lock_model`. Raises LockError."""
    folder = checkout / "platform/nix"
    packages = requirements((folder / "debs.in").read_text())
    debs = _write(folder / "debs.lock", resolve_debs(packages, debian_index()), "Debian packages, from bookworm/main.")
    with fetch.seed_tree(checkout, state) as tree:
        line = f"{tree.name} {nix.archive_digest(tree)}"
    seed = _replace(folder / "seed.lock", render_lines([line], title=SEED_TITLE))
    return {folder / "debs.lock": debs, folder / "seed.lock": seed}


def resolve(group: Group, *, keep: Sequence[Pin] = ()) -> tuple[Pin, ...]:
    """Lock a requirement list: newest versions that fit, or those of `keep` where they still fit.

    Asks the package index that pip and uv are set up for. Raises LockError.
    """
    pins: list[Pin] = []
    if group.requirements:
        binary = () if group.buildable else ("--only-binary=:all:",)
        versions = _versions(group.requirements, keep, *binary)
        pins += _files(versions, *binary)
    if group.alone:
        pins += _files(group.alone, "--only-binary=:all:")
    if group.sources:
        pins += _files(group.sources, *(f"--no-binary={Requirement(item).name}" for item in group.sources))
    return ordered(sorted(pins))


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
    try:
        files = process.run(["apt-get", "indextargets", "--format", "$(FILENAME)", *fetch.DEBIAN]).decode().split()
        if not files:
            raise LockError("apt is not set up for Debian bookworm/main", fix="apt-get update")
        return process.run([fetch.APT_HELPER, "cat-file", files[0]]).decode()
    except PipelineError as error:
        raise LockError(f"apt's index cannot be read: {error.what}", where=error.where, fix="apt-get update") from error


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


def _versions(wanted: Sequence[str], keep: Sequence[Pin], *options: str) -> list[str]:
    """`name==version` of everything that `wanted` needs."""
    # uv reads versions to keep from the file that it is told to write.
    text = _uv(wanted, "requirements.txt", *options, before="".join(f"{pin.name}=={pin.version}\n" for pin in keep))
    return [entry for line in text.splitlines() if (entry := line.split(";")[0].strip()) and not entry.startswith("#")]


def _files(wanted: Sequence[str], *options: str) -> list[Pin]:
    """One file for each of the exact requirements `wanted`, without dependencies: a wheel if there is one."""
    table = tomllib.loads(_uv(wanted, "pylock.toml", "--no-deps", *options))
    pins = []
    for package in table.get("packages", []):
        wheels, archives = _offers(package.get("wheels", [])), _offers([package["sdist"]] if "sdist" in package else [])
        only_wheels = "--only-binary=:all:" in options
        chosen = best_wheel(wheels) or (None if only_wheels else next(iter(archives), None))
        if chosen is None:
            raise LockError(f"{package['name']} {package['version']} has no wheel for CPython 3.11 on x86-64 Linux")
        digest = f"sha256:{(wheels | archives)[chosen]['hashes']['sha256']}"
        pins.append(Pin(canonicalize_name(package["name"]), package["version"], digest, chosen))
    if len(pins) != len(wanted):
        raise LockError(f"{len(wanted)} requirements gave {len(pins)} files", fix="helix lock")
    return pins


def _offers(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The files of a distribution by their names, which pylock.toml gives as the end of an address."""
    return {unquote(urlsplit(entry["url"]).path).rsplit("/", 1)[1]: entry for entry in entries}


def _uv(wanted: Sequence[str], form: str, *options: str, before: str = "") -> str:
    """Run `uv pip compile` on `wanted`; gives the text that it wrote. Raises LockError."""
    uv = find_uv()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "wanted.in"), Path(folder, "pylock.toml" if form == "pylock.toml" else "out.txt")
        source.write_text("\n".join(wanted) + "\n")
        if before:
            output.write_text(before)
        try:
            process.run(
                [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--format", form,
                 "--python-version", f"{PYTHON[0]}.{PYTHON[1]}", "--python-platform", f"x86_64-manylinux_2_{GLIBC[1]}",
                 *options, source, "--output-file", output],
                env=_settings(),
            )  # fmt: skip
        except PipelineError as error:
            raise LockError(f"the requirements cannot be resolved: {error.what}", where=", ".join(wanted)) from error
        return output.read_text()


def _settings() -> dict[str, str]:
    """What makes uv use the machine's certificates and the index that pip was told to use."""
    index = os.environ.get("PIP_INDEX_URL")
    wanted = {"UV_SYSTEM_CERTS": "1", **({"UV_DEFAULT_INDEX": index} if index else {})}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def find_uv() -> str:
    """The uv beside this Python (the project's set-up puts it there), else the one on PATH. Raises LockError."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise LockError("uv is not installed", fix="make setup")
    return found


def _kept(path: Path, upgrade: bool) -> tuple[Pin, ...]:
    """The pins whose versions are to be kept, where there are any."""
    if upgrade or not path.is_file():
        return ()
    try:
        return read(path)
    except LockError:
        return ()  # a lock in another form is written anew


def _write(path: Path, pins: Iterable[Pin | DebPin], title: str) -> bool:
    return _replace(path, render(pins, title=title))


def _replace(path: Path, text: str) -> bool:
    """Write the file unless it is the same already; says whether it was written."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return True
