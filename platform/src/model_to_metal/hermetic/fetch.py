"""Brings in what the locks name: the only step of a build that uses the network.

Takes the locks of a checkout; gives the files in `.helix/downloads` and in the Nix store, each
checked against its SHA-256. Files come through the machine's own pip and apt, so mirrors,
proxies and certificates are whatever those are set up for. What is there already is left alone.

>>> Locked("wheels", "a-1-py3-none-any.whl", "sha256:" + "0" * 64).store_path.endswith("-a-1-py3-none-any.whl")
True
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helix_lineage.formats.canonical import file_digest
from helix_lineage.paths import State
from model_to_metal.errors import FetchError, PipelineError
from model_to_metal.hermetic import locks, nix
from model_to_metal.hermetic.nix import NixStore
from model_to_metal.host import process

MIRROR_VARIABLE = "HELIX_DEBIAN_MIRROR"
"""Environment variable: a Debian mirror's address, in place of the one that apt uses."""

SEED = "busybox-static"
"""The package that holds the executable that every build starts from."""

DEBIAN = ("Identifier: Packages", "Label: Debian", "Codename: bookworm", "Component: main", "Architecture: amd64")
"""What `apt-get indextargets` is asked for."""

APT_HELPER = "/usr/lib/apt/apt-helper"

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many files are done, and how many there are."""


def untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A file that a lock names."""

    folder: str
    """Below `.helix/downloads`: wheels, upstream or debs."""
    filename: str
    """Its own name."""
    digest: str
    """`sha256:<64 hex>` of its bytes."""
    pin: locks.Pin | locks.DebPin | None = field(default=None, compare=False)
    """The line of the lock."""

    @property
    def store_path(self) -> str:
        """Where the Nix store holds it."""
        return nix.fixed_output_path(nix.store_name(self.filename), self.digest)

    @property
    def is_kept(self) -> bool:
        """Do others than Nix read it from `.helix/downloads`?"""
        return self.folder == "upstream"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was done."""

    locked: int
    """Files that the locks name."""
    downloaded: int
    """Files that came over the network just now."""
    added: int
    """Files that went into the Nix store just now."""


def locked_files(checkout: Path, models: Sequence[str] | None = None) -> tuple[Locked, ...]:
    """Every file that the locks of `models` (default: all) and of the base name. Raises LockError."""
    found: dict[tuple[str, str], Locked] = {}
    names = models or sorted(path.parent.parent.name for path in checkout.glob("models/*/environment/serve.lock"))
    for name in names:
        folder = checkout / "models" / name
        files = [*sorted(folder.glob("environment/*.lock")), folder / "data" / "upstream.lock"]
        for path in (file for file in files if file.is_file()):
            place = "upstream" if path.name == "upstream.lock" else "wheels"
            for pin in locks.read(path):
                found[place, pin.filename] = Locked(place, pin.filename, pin.digest, pin)
    for deb in locks.read_debs(checkout / "platform/nix/debs.lock"):
        found["debs", deb.filename] = Locked("debs", deb.filename, deb.digest, deb)
    return tuple(found.values())


def fetch(
    checkout: Path,
    state: State,
    *,
    models: Sequence[str] | None = None,
    store: NixStore | None = None,
    progress: Progress = untold,
) -> Fetched:
    """Bring in every locked file and the seed. Raises FetchError, LockError or NixError."""
    store = store or NixStore.of(state)
    files = locked_files(checkout, models)
    valid = store.valid(file.store_path for file in files)
    kept = {file for file in files if file.is_kept and not _at(state, file).exists()}
    wanted = [file for file in files if file.store_path not in valid or file in kept]
    absent = [file for file in wanted if not is_intact(_at(state, file), file.digest)]
    if absent:
        _download(state, absent, progress)
    adding = [file for file in wanted if file.store_path not in valid]
    _add(state, store, adding, progress)
    add_seed(checkout, state, store)
    return Fetched(len(files), len(absent), len(adding))


def is_intact(path: Path, digest: str) -> bool:
    """Is the file there, with that SHA-256?"""
    try:
        return file_digest(path) == digest
    except FileNotFoundError:
        return False


def debian_mirror() -> str:
    """Address of the Debian mirror: `$HELIX_DEBIAN_MIRROR`, or the one that apt uses. Raises FetchError."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return named.rstrip("/")
    try:
        answer = process.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *DEBIAN]).decode().split()
    except PipelineError as error:
        raise FetchError(f"apt cannot be asked for its mirror: {error.what}", fix=_SET_MIRROR) from error
    if not answer:
        raise FetchError("apt is not set up for Debian bookworm/main", fix=_SET_MIRROR)
    return answer[0].rstrip("/")


_SET_MIRROR = f"export {MIRROR_VARIABLE}=<address of a Debian mirror>"


def add_seed(checkout: Path, state: State, store: NixStore) -> str:
    """Put the seed into the store, from its package; gives its store path. Raises FetchError or LockError."""
    path = checkout / "platform/nix/seed.lock"
    try:
        name, digest = locks.requirements(path.read_text())[0].split()
    except (OSError, IndexError, ValueError) as error:
        raise FetchError("the seed is not locked", where=str(path), fix="helix lock --debs") from error
    expected = nix.fixed_output_path(name, digest, recursive=True)
    if store.valid([expected]):
        return expected
    with seed_tree(checkout, state) as tree:
        if store.add_fixed([tree], recursive=True) != [expected]:
            raise FetchError("the seed is not the one that was locked", where=str(path), fix="helix lock --debs")
    return expected


class seed_tree:  # noqa: N801  a context manager that reads as a function
    """A folder `busybox` with `bin/busybox` of the locked package, for as long as the context lasts."""

    def __init__(self, checkout: Path, state: State) -> None:
        self._checkout = checkout
        self._state = state
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        pins = locks.read_debs(self._checkout / "platform/nix/debs.lock")
        package = next((pin for pin in pins if pin.package == SEED), None)
        if package is None:
            raise FetchError(f"{SEED} is not locked", where="platform/nix/debs.lock", fix="helix lock --debs")
        file = Locked("debs", package.filename, package.digest, package)
        if not is_intact(_at(self._state, file), file.digest):
            _download(self._state, [file], untold)
        here = Path(self._folder.name)
        process.run(["dpkg-deb", "--extract", _at(self._state, file), here / "package"])
        tree = here / "busybox"
        (tree / "bin").mkdir(parents=True)
        shutil.copy2(here / "package/bin/busybox", tree / "bin/busybox")
        return tree

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _at(state: State, file: Locked) -> Path:
    return state.downloads / file.folder / file.filename


def _download(state: State, files: Sequence[Locked], progress: Progress) -> None:
    """Download `files`; each is checked against its digest before it is at its place."""
    done = 0

    def told(name: str) -> None:
        nonlocal done
        progress(f"downloading {name}", done, len(files))
        done += 1

    python = [file for file in files if isinstance(file.pin, locks.Pin)]
    for folder in sorted({file.folder for file in python}):
        pins = [file.pin for file in python if file.folder == folder and isinstance(file.pin, locks.Pin)]
        for together in rounds(pins):
            _pip(state.downloads / folder, together, told)
    mirror = debian_mirror() if any(file.folder == "debs" for file in files) else ""
    for file in files:
        if isinstance(file.pin, locks.DebPin):
            told(file.filename)
            _apt(f"{mirror}/{file.pin.path}", file.digest, _at(state, file))
    for file in files:
        if not is_intact(_at(state, file), file.digest):
            raise FetchError("the download is not the file that was locked", where=file.filename, fix="helix lock")


def rounds(pins: Iterable[locks.Pin]) -> list[list[locks.Pin]]:
    """Pins in groups that hold each distribution once. Pure.

    Two locks may hold two versions of one distribution; one call of pip may not.
    """
    groups: list[dict[str, locks.Pin]] = []
    for pin in sorted(pins, key=lambda pin: (pin.name, pin.filename)):
        group = next((group for group in groups if pin.name not in group), None)
        if group is None:
            groups.append(group := {})
        group[pin.name] = pin
    return [list(group.values()) for group in groups]


def _pip(folder: Path, pins: Sequence[locks.Pin], told: Callable[[str], None]) -> None:
    """Download distributions with pip, which checks the hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    # pip prepares the metadata of source archives, for which it fetches what they are built with.
    # That is thrown away: the archive, by its hash, is all that we keep. `:all:` would build those too.
    sources = sorted({pin.name for pin in pins if not pin.filename.endswith(".whl")})
    options = [f"--no-binary={','.join(sources)}"] if sources else ["--only-binary=:all:"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        lock = Path(scratch, "files.lock")
        lock.write_text("\n".join(sorted({pin.line() for pin in pins})) + "\n")

        def line(text: str) -> None:
            if found := re.match(r"Collecting (\S+)", text):
                told(found[1])

        try:
            process.watch(
                [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--progress-bar=off",
                 "--no-cache-dir", "--no-deps", "--require-hashes", *options, "--dest", scratch, "-r", lock],
                line,
            )  # fmt: skip
        except PipelineError as error:
            raise FetchError(f"pip cannot download what is locked: {error.what}", fix="helix lock") from error
        for pin in pins:
            Path(scratch, pin.filename).replace(folder / pin.filename)


def _apt(address: str, digest: str, target: Path) -> None:
    """Download a .deb with apt's own downloader, which checks the hash."""
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(target.name + ".part")
    half.unlink(missing_ok=True)
    expected = f"SHA256:{digest.removeprefix('sha256:')}"
    # As root, apt would download as another user, who cannot write here, and would say so each time.
    helper = [APT_HELPER, "-qq", "-o", f"APT::Sandbox::User={'root' if os.getuid() == 0 else ''}"]
    try:
        process.run([*helper, "download-file", address, half, expected])
    except PipelineError as error:
        raise FetchError(f"apt cannot download: {error.what}", where=address, fix="helix lock --debs") from error
    half.replace(target)


def _add(state: State, store: NixStore, files: Sequence[Locked], progress: Progress) -> None:
    """Put files into the store under the names that it allows."""
    state.downloads.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        progress(f"adding {file.filename}", number, len(files))
        source = _at(state, file)
        with tempfile.TemporaryDirectory(dir=state.downloads) as scratch:
            named = Path(scratch, nix.store_name(file.filename))
            os.link(source, named)
            if store.add_fixed([named]) != [file.store_path]:
                raise FetchError("the file is not the one that was locked", where=str(source), fix="helix fetch")
            if store.root == state.nix:
                _share(source, store.real(file.store_path), Path(scratch))


def _share(download: Path, stored: Path, scratch: Path) -> None:
    """Make the download a second name of the stored file: the same bytes need not lie on disk twice."""
    link = scratch / "link"
    os.link(stored, link)
    link.replace(download)
