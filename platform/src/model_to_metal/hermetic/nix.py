"""Runs Nix: the one module that does.

The store is a chroot store, a folder that holds `nix/store`; it needs no root and no daemon.
Builds have no network and no binary cache: their inputs are put in place by `helix fetch`.

>>> fixed_output_path("a.whl", "sha256:" + "0" * 64).endswith("-a.whl")
True
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.paths import State
from helix_lineage.process import USER
from model_to_metal.errors import NixError
from model_to_metal.host import process

PREFIX = "/nix/store"
_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
_UNSAFE = re.compile(r"[^A-Za-z0-9+._?=-]")
_TAIL = 4000  # characters of Nix's complaint that an error carries
_SENTENCE = 300  # characters of it that its sentence quotes
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_SETTINGS = """\
experimental-features = nix-command flakes
substituters =
build-users-group =
sandbox = true
sandbox-fallback = false
flake-registry =
warn-dirty = false
auto-optimise-store = true
"""
"""No cache to ask (each call would wait for it), no build users, no build outside a sandbox; equal files once."""

Progress = Callable[[str], None]
Table = Mapping[str, Mapping[str, Any]]
"""What `nix show-derivation --recursive` prints: `.drv` → its fields."""


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """A step of a build."""

    path: str
    """Its `.drv` in the store."""
    output: str
    """Store path of its output."""
    fixed: bool
    """Is it a locked file (its output is known by hash, its builder never runs)?"""
    inputs: tuple[str, ...]
    """The `.drv`s that it needs."""

    @property
    def name(self) -> str:
        """The output's name without its hash."""
        return self.output.split("-", 1)[1]


@dataclass(frozen=True, slots=True)
class NixStore:
    """A chroot store."""

    root: Path
    """The folder that holds `nix/store`."""
    offline: bool = False
    """Whether Nix itself (evaluation, copying) runs without a network too; its builders always do."""

    @classmethod
    def of(cls, state: State) -> NixStore:
        """The store of a checkout."""
        return cls(state.nix)

    def real(self, store_path: str) -> Path:
        """Where a store path lies on disk."""
        return self.root / store_path.lstrip("/")

    def valid(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that are in the store."""
        # Nix registers a path before it is visible at its place, so what is not there needs no asking.
        there = sorted(path for path in set(paths) if self.real(path).exists())
        if not there:
            return set()
        invalid = self._run(["nix-store", "--check-validity", "--print-invalid", *there]).split()
        return set(there) - set(invalid)

    def add_fixed(self, files: Sequence[Path], *, recursive: bool = False) -> list[str]:
        """Add files (or folders) by their content under their own names; gives their store paths."""
        if not files:
            return []
        mode = ["--recursive"] if recursive else []
        return self._run(["nix-store", "--add-fixed", *mode, "sha256", *map(str, files)]).split()

    def build(
        self, installable: str, *, cores: int | None = None, rebuild: bool = False, report: Progress = silent
    ) -> str:
        """Build `FLAKE#ATTRIBUTE`; gives the store path of its output. Raises NixError."""
        options = ["--json", "--no-link", "--no-write-lock-file", "-L"]
        options += ["--rebuild"] if rebuild else []
        options += ["--cores", str(cores)] if cores else []
        answer = json.loads(self._run(["nix", "build", *options, installable], report=report, cores=cores))
        return str(answer[0]["outputs"]["out"])

    def derivations(self, installable: str) -> dict[str, Derivation]:
        """Every step that `FLAKE#ATTRIBUTE` takes, by `.drv`, each after those that it needs."""
        table = self.described(installable)
        found = {path: _derivation(path, fields) for path, fields in table.items()}
        ordered: dict[str, Derivation] = {}

        def visit(path: str) -> None:
            if path not in ordered:
                for needed in found[path].inputs:
                    visit(needed)
                ordered[path] = found[path]

        for path in sorted(found):
            visit(path)
        return ordered

    def described(self, installable: str) -> Table:
        """Every step that `FLAKE#ATTRIBUTE` takes, as Nix prints it. Its sources are in the store afterwards."""
        command = ["nix", "show-derivation", "--recursive", "--no-write-lock-file", installable]
        return dict(json.loads(self._run(command)))

    def source_inputs(self, derivation: str) -> list[str]:
        """The source trees (not scripts, not results of other steps) that a step was given, by store path."""
        table = json.loads(self._run(["nix", "show-derivation", derivation]))
        return [path for path in table[derivation]["inputSrcs"] if self.real(path).is_dir()]

    def copy(self, paths: Iterable[str], other: NixStore) -> None:
        """Put paths of this store, with all that they refer to, into another one."""
        if wanted := sorted(set(paths)):
            other.root.mkdir(parents=True, exist_ok=True)
            self._run(["nix", "copy", "--no-check-sigs", "--to", str(other.root), *wanted])

    def archives(self, paths: Iterable[str]) -> dict[str, tuple[str, int]]:
        """For each path that is in the store, the hash of its Nix archive and the size (bytes)."""
        wanted = sorted(set(paths))
        rows = json.loads(self._run(["nix", "path-info", "--json", *wanted])) if wanted else []
        return {row["path"]: (row["narHash"], row["narSize"]) for row in rows if row.get("valid", True)}

    def remove(self) -> None:
        """Delete the whole store."""
        if self.root.exists():
            for folder, _, _ in os.walk(self.root):
                Path(folder).chmod(0o700)  # everything in a store is read-only
            shutil.rmtree(self.root)

    def _run(self, argv: list[str], *, report: Progress = silent, cores: int | None = None) -> str:
        if shutil.which(argv[0]) is None:
            raise NixError(f"{argv[0]} is not installed", fix="make setup")
        self.root.mkdir(parents=True, exist_ok=True)
        with _cores(cores):
            running = subprocess.Popen(
                [*(_no_network() if self.offline else ()), *argv, "--store", str(self.root)],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        lines: list[str] = []
        reader = threading.Thread(target=_follow, args=(running, lines, report), daemon=True)
        reader.start()
        try:
            output = running.stdout.read() if running.stdout else ""
            status = running.wait()
        except BaseException:
            running.send_signal(signal.SIGINT)  # lets Nix end its builders
            running.wait()
            raise
        finally:
            reader.join()
        if status:
            raise NixError(summary(argv, lines), where=argv[-1], fix=_fix(lines), raw=_reason(lines))
        return output

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NIX_")}
        # Nix's own caches stay in the store's folder too, so that they vanish with it.
        caches = {"XDG_CACHE_HOME": str(self.root / "cache"), "XDG_CONFIG_HOME": str(self.root / "config")}
        return {**kept, **caches, "NIX_CONFIG": _SETTINGS, "NIX_REMOTE": ""}


def store_name(filename: str) -> str:
    """The name of a file in the store, which holds fewer characters than a file name may."""
    return _UNSAFE.sub("_", filename)


def fixed_output_path(name: str, digest: str, *, recursive: bool = False) -> str:
    """The store path of what has this name and SHA-256 (of its bytes, or of its Nix archive)."""
    hexadecimal = digest.removeprefix("sha256:")
    if recursive:
        kind, inner = "source", hexadecimal
    else:
        kind, inner = "output:out", hashlib.sha256(f"fixed:out:sha256:{hexadecimal}:".encode()).hexdigest()
    whole = hashlib.sha256(f"{kind}:sha256:{inner}:{PREFIX}:{name}".encode()).digest()
    folded = bytearray(20)
    for place, byte in enumerate(whole):
        folded[place % 20] ^= byte
    number = int.from_bytes(folded, "little")
    return f"{PREFIX}/{''.join(_BASE32[number >> shift & 31] for shift in range(155, -1, -5))}-{name}"


def archive_digest(path: Path) -> str:
    """`sha256:<64 hex>` of the Nix archive of a file or folder. Raises NixError."""
    with tempfile.TemporaryDirectory() as folder:
        digest = NixStore(Path(folder))._run(["nix-hash", "--type", "sha256", str(path)]).strip()
    return f"sha256:{digest}"


@contextmanager
def sources(checkout: Path, scratch: Path) -> Iterator[str]:
    """A flake reference to the checkout as it is now: every file that Git tracks or would track.

    The files are copied to a folder below `scratch` for as long as the context lasts: a Git flake
    leaves out what is not yet tracked, and a path flake of the checkout would copy `.helix` too.
    Raises ToolError when `checkout` is not a Git checkout.
    """
    names = process.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=checkout).decode().split("\0")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flake-", dir=scratch) as folder:
        for name in filter(None, names):
            source, target = checkout / name, Path(folder, name)
            if source.is_file() or source.is_symlink():  # else it was deleted, and Git was not told
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        yield f"path:{folder}"


def build(attribute: str, checkout: Path, state: State, *, rebuild: bool = False, report: Progress = silent) -> Path:
    """Build an attribute of the checkout's flake; gives its output on disk. Raises NixError.

    With `rebuild` its last step is run once more and compared, also when the output was there.
    """
    store = NixStore.of(state)
    with sources(checkout, state.root / "scratch") as flake:
        made = store.build(f"{flake}#{attribute}", report=report)
        return store.real(store.build(f"{flake}#{attribute}", rebuild=True, report=report) if rebuild else made)


def environment_command(
    store: NixStore,
    environment: str,
    argv: Sequence[str],
    *,
    read: Mapping[Path, str] | None = None,
    write: Mapping[Path, str] | None = None,
    variables: Mapping[str, str] | None = None,
    folder: str = "/",
) -> list[str]:
    """The command line that runs `argv` in a Python environment, shut off from machine and network.

    Args:
        store: where the environment lies.
        environment: store path of a `<model>-serve-env` or `<model>-build-env`.
        argv: what to run; `python` is the environment's.
        read: host path → path inside, read-only.
        write: host path → path inside, writable.
        variables: environment variables; no others are there but the usual few.
        folder: working folder inside.
    """
    home = store.real(environment)
    base = store.real(str((home / "base").readlink()))
    if not (base / "usr/bin/python3.11").is_file():
        raise NixError("not a Python environment", where=str(home))
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--cap-drop", "ALL", "--uid", str(USER), "--gid", str(USER), "--hostname", "helix"]
    for name in ("usr", "lib", "lib64", "etc"):
        command += ["--ro-bind", str(base / name), f"/{name}"]
    command += ["--ro-bind", str(store.root / "nix"), "/nix", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
    settings = {
        "PATH": f"{environment}/bin:/usr/bin",
        "PYTHONPATH": f"{environment}/site-packages",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "HOME": "/tmp",  # noqa: S108  a tmpfs of its own
        "LC_ALL": "C.UTF-8",
        **(variables or {}),
    }
    for name, value in settings.items():
        command += ["--setenv", name, value]
    for flag, binds in (("--ro-bind", read or {}), ("--bind", write or {})):
        for host, inside in binds.items():
            command += [flag, str(host), inside]
    return [*command, "--chdir", folder, "--", *argv]


def run_in_env(command: Sequence[str]) -> int:
    """Run what `environment_command` gave, with this process's streams; gives the exit status."""
    if shutil.which(command[0]) is None:
        raise NixError("bwrap (bubblewrap) is not installed", fix="make setup")
    return subprocess.run(command, check=False).returncode


def _no_network() -> list[str]:
    """Words that put a command into a network namespace of its own, where not even the loopback interface is up."""
    if shutil.which("unshare") is None:
        raise NixError("unshare is not installed", fix="apt-get install util-linux")
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-current-user", "--net"]


def _derivation(path: str, fields: Mapping[str, Any]) -> Derivation:
    output = fields["outputs"]["out"]
    return Derivation(path, output["path"], "hash" in output, tuple(sorted(fields["inputDrvs"])))


@contextmanager
def _cores(count: int | None) -> Iterator[None]:
    """Processes that are started in this context see that many cores only."""
    mine = os.sched_getaffinity(0)
    if count:
        os.sched_setaffinity(0, sorted(mine)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _follow(running: subprocess.Popen[str], into: list[str], report: Progress) -> None:
    for line in running.stderr or ():
        into.append(line)
        report(line.rstrip("\n"))


def summary(argv: Sequence[str], lines: Sequence[str]) -> str:
    """One sentence of what Nix wrote: the error itself, or the last words of the step that failed.

    >>> summary(["nix", "build"], ["error: builder for '/nix/store/abc-base.drv' failed", "  > no room"])
    'nix build failed at base: no room'
    >>> summary(["nix", "build"], ["base> no room", "error: 1 dependencies of derivation 'x.drv' failed to build"])
    'nix build failed: no room'
    """
    plain = [_COLOUR.sub("", line).strip() for line in lines]
    errors = [line.removeprefix("error:").strip() for line in plain if line.startswith("error:")]
    said = [words[1].strip() for line in plain if len(words := line.split("> ", 1)) == 2 and words[1].strip()]
    step = next((found[1] for line in errors if (found := re.search(r"builder for '\S+?-(\S+)\.drv'", line))), None)
    of_step = step is not None or any("failed to build" in line for line in errors)
    why = said[-1] if of_step and said else next(iter(errors), plain[-1] if plain else "it gives no reason")
    return f"{' '.join(argv[:2])} failed{f' at {step}' if step else ''}: {why[:_SENTENCE]}"


def _reason(lines: Sequence[str]) -> str:
    return "".join(lines).strip()[-_TAIL:]


def _fix(lines: Sequence[str]) -> str | None:
    """The command that a builder of ours names."""
    found = re.findall(r"run: (helix [a-z -]+)", "".join(lines))
    return found[-1].strip() if found else None
