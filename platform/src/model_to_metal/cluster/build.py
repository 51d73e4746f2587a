"""Builds a cluster's programs from their Go modules, once.

Takes the modules of `programs.toml`; gives `.helix/cluster/programs`: a folder a module, named by
the key of what it was built from, and `bin` with a link to every program. Modules come by
checksum (`go.sum`). Go's caches lie under `.helix/cluster/go` and are removed when everything is
built: what they take meanwhile is bounded by emptying the cache of objects when it outgrows
`CACHE_LIMIT`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from helix_lineage.paths import State
from model_to_metal.cluster import images
from model_to_metal.cluster.errors import ClusterError, Prerequisite
from model_to_metal.cluster.layout import BuildFolder
from model_to_metal.cluster.programs import Copied, Module, declared
from model_to_metal.errors import ToolError, ToolMissing
from model_to_metal.host import tools
from model_to_metal.host.process import run, watch

CACHE_LIMIT = 3 << 30
"""Bytes of compiled objects above which the cache is emptied between two modules."""
PEAK_GB, KEPT_GB = 16, 1
"""What a first build may take of the disk (modules 8 GB, objects 3 GB and one module's more), and what stays."""

TOOLS = ("olareg", "kustomize")
"""Tools of the platform (`platform/tools`) that the node runs too."""

_PROGRESS_S = 10.0
_Progress = Callable[[str], None]


def missing(state: State) -> list[Module]:
    """The modules that are not built as they are declared."""
    programs = BuildFolder.of(state).programs
    return [module for module in declared() if not (programs / module.folder).is_dir()]


def ensure(state: State, report: _Progress = lambda _line: None, *, keep_caches: bool = False) -> Path:
    """Build what is missing; gives the folder of programs. `report` is given lines of progress.

    `keep_caches` is for who changes what is built: the next build is short, and the disk stays full.

    Raises Prerequisite when there is no Go or too little disk, ClusterError when a build fails.
    """
    build_folder = BuildFolder.of(state)
    build_folder.programs.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(build_folder, report):
        if wanted := missing(state):
            _check_disk(build_folder)
            _build_all(wanted, build_folder, state, report, keep_caches=keep_caches)
        for name in TOOLS:
            _place(tools.ensure(name, state, report), build_folder.programs / "bin" / name)
        if wanted or not (build_folder.programs / "images").is_dir():
            images.compose(build_folder.programs / "bin", build_folder.programs / "images")
    return build_folder.programs


def _build_all(
    wanted: Sequence[Module], build_folder: BuildFolder, state: State, report: _Progress, *, keep_caches: bool
) -> None:
    began = time.monotonic()
    report(f"building {len(wanted)} Go modules from source, once; up to {PEAK_GB} GB of disk until it is done")
    for at, module in enumerate(wanted, 1):
        try:
            _build(module, build_folder, state, lambda line, at=at: report(f"[{at}/{len(wanted)}] {line}"))  # type: ignore[misc]
        except ToolMissing as error:
            raise Prerequisite(f"no Go to build with: {error.what}", fix="make setup-cluster") from error
        except ToolError as error:
            raise ClusterError(f"{module.name} cannot be built", where=str(module.source), raw=error.what) from error
        if not keep_caches and _size(build_folder.go / "objects") > CACHE_LIMIT:
            shutil.rmtree(build_folder.go / "objects")
    _link(build_folder)
    if not keep_caches:
        shutil.rmtree(build_folder.go, ignore_errors=True)
    report(f"built in {(time.monotonic() - began) / 60:.1f} minutes")


def _build(module: Module, build_folder: BuildFolder, state: State, report: _Progress) -> None:
    began = time.monotonic()
    go, environment = tools.toolchain(module.go, state, report)
    environment = {**environment, **_caches(build_folder), "CGO_ENABLED": "1" if module.cgo else "0"}
    run([go, "mod", "download"], cwd=module.source, env=environment)
    with tempfile.TemporaryDirectory(dir=build_folder.programs, prefix=f".{module.name}-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        source = module.source
        if module.copied:
            source = _copy(module.copied, go, module.source, Path(scratch) / "source", environment)
        total = len(
            run([go, "list", "-deps", *_tags(module), *module.programs.values()], cwd=source, env=environment).split()
        )
        progress = _progress(module.name, total, began, report)
        for name, package in module.programs.items():
            watch([go, "build", *module.flags(), "-o", made / name, package], progress, cwd=source, env=environment)
            for link in module.links.get(name, ()):
                (made / link).symlink_to(name)
        for name, place in module.assets.items():
            _copy_asset(place, made / name, go, module.source, environment)
        made.chmod(0o755)
        made.replace(build_folder.programs / module.folder)
    report(f"{module.name}: built in {time.monotonic() - began:.0f} s")


def _caches(build_folder: BuildFolder) -> Mapping[str, str]:
    return {
        "GOMODCACHE": str(build_folder.go / "modules"),
        "GOCACHE": str(build_folder.go / "objects"),
        # Without this the module cache is read-only and cannot be removed like any other folder.
        "GOFLAGS": "-mod=readonly -modcacherw",
    }


def _tags(module: Module) -> list[str]:
    return [f"-tags={','.join(module.tags)}"] if module.tags else []


def _progress(name: str, total: int, began: float, report: _Progress) -> Callable[[str], None]:
    """Count the packages that `go build -v` prints; those of the cache it does not print."""
    count, last = 0, began

    def line(_text: str) -> None:
        nonlocal count, last
        count += 1
        if time.monotonic() - last >= _PROGRESS_S:
            last = time.monotonic()
            report(f"{name}: {count} of at most {total} packages, {last - began:.0f} s")

    return line


def _copy(copied: Copied, go: Path, declaring: Path, target: Path, environment: Mapping[str, str | None]) -> Path:
    """Copy a verified module's source and add what its archive lacks; its own go.mod and go.sum build it."""
    shutil.copytree(_module_folder(copied.module, go, declaring, environment), target)
    for name, other in copied.links.items():
        shutil.copyfile((target / name).parent / other, target / name)
    for name, text in copied.writes.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
    return target


def _copy_asset(place: str, target: Path, go: Path, declaring: Path, environment: Mapping[str, str | None]) -> None:
    module, _, path = place.partition("!")
    source = _module_folder(module, go, declaring, environment) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # Manifests only: a kustomization is none that an API server knows.
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.go", "*.md", "kustomization.yaml"))
    else:
        shutil.copyfile(source, target)
        # Archives of modules forget which of their files are programs.
        target.chmod(0o755 if target.suffix == ".sh" else 0o644)


def _module_folder(module: str, go: Path, declaring: Path, environment: Mapping[str, str | None]) -> Path:
    return Path(run([go, "list", "-m", "-f", "{{.Dir}}", module], cwd=declaring, env=environment).decode().strip())


def _link(build_folder: BuildFolder) -> None:
    """Point `bin` at the newest build of every program, and forget the builds that nothing declares any more."""
    modules = declared()
    links = build_folder.programs / "bin"
    links.mkdir(exist_ok=True)
    for module in modules:
        for path in (build_folder.programs / module.folder).iterdir():
            half = links / f".{path.name}"
            half.unlink(missing_ok=True)
            half.symlink_to(Path("..") / module.folder / path.name)
            half.replace(links / path.name)
    known = {module.folder for module in modules} | {"bin", "images"}
    for path in build_folder.programs.iterdir():
        # A running node keeps what it was started from.
        if path.name not in known and not build_folder.clusters():
            shutil.rmtree(path, ignore_errors=True)


def _place(tool: Path, target: Path) -> None:
    """Copy a tool beside the programs, unless that very one is there."""
    if target.exists() and target.stat().st_mtime_ns == tool.stat().st_mtime_ns:
        return
    half = target.with_name(f".{target.name}")
    shutil.copy2(tool, half)
    half.replace(target)


def _check_disk(build_folder: BuildFolder) -> None:
    free = shutil.disk_usage(build_folder.root).free / 1e9
    if free < PEAK_GB:
        raise Prerequisite(
            f"a first build needs up to {PEAK_GB} GB of disk, and {free:.0f} GB are free", where=str(build_folder.root)
        )


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for path, _, names in os.walk(folder) for entry in (Path(path, n) for n in names))


@contextmanager
def _one_at_a_time(build_folder: BuildFolder, report: _Progress) -> Iterator[None]:
    with (build_folder.root / "build.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another command builds in this checkout; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
