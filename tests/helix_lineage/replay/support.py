"""Builds a small real image: Python, the replay protocol, a weight file, and `files.json`."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cbor2

import helix_lineage
from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import Json, digest_bytes, dumps
from helix_lineage.replay.images import FILES

OCI = "application/vnd.oci.image"
MACHINE = "x86-64-v4"
HERE = Path(__file__).parent
_LEFT_OUT = ("__pycache__", "test", "tests", "site-packages", "idlelib", "ensurepip", "lib2to3", "tkinter", "config-*",
             "turtledemo", "pydoc_data", "dist-packages")  # fmt: skip


@dataclass(frozen=True)
class BuiltImage:
    """An OCI layout and what a release says of it."""

    layout: Path
    rootfs: Path
    digest: str
    filesystem: str


def build(folder: Path, weights: bytes = b"weights" * 1000, machine: str = MACHINE) -> BuiltImage:
    """An image whose model is `model/helixserve` with these weights."""
    rootfs = folder / "rootfs"
    _copy_python(rootfs)
    platform = rootfs / "opt/helix/platform"
    shutil.copytree(HERE / "model/helixserve", platform / "helixserve")
    package = Path(helix_lineage.__file__).parent
    (platform / "helix_lineage/formats").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "formats/__init__.py", "formats/typed.py"):
        shutil.copy(package / name, platform / "helix_lineage" / name)
    shutil.copytree(Path(cbor2.__file__).parent, platform / "cbor2", ignore=shutil.ignore_patterns("__pycache__"))
    _copy_libraries(rootfs)
    (rootfs / "opt/helix/artifacts").mkdir()
    (rootfs / "opt/helix/artifacts/weights.safetensors").write_bytes(weights)
    (rootfs / "opt/helix/model").mkdir()
    (rootfs / "opt/helix/model/model.toml").write_text('name = "m"\n')
    listed = list_files(rootfs)
    (rootfs / FILES).write_bytes(listed)
    (rootfs / FILES).chmod(0o644)
    layout = folder / "layout"
    return BuiltImage(layout, rootfs, write_layout(layout, rootfs, machine), digest_bytes(listed))


def list_files(rootfs: Path) -> bytes:
    """`files.json` of a root file system, modes made plain."""
    files: list[Json] = []
    for path in sorted(item for item in rootfs.rglob("*") if item.is_symlink() or item.is_file()):
        name = path.relative_to(rootfs).as_posix()
        if path.is_symlink():
            files.append({"path": name, "link": str(path.readlink())})
        elif name != FILES:
            data = path.read_bytes()
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            mode = stat.S_IMODE(path.stat().st_mode)
            files.append({"path": name, "digest": digest_bytes(data), "size": len(data), "mode": mode})
    return dumps({"version": 1, "files": sorted(files, key=lambda item: str(item["path"]))})


def write_layout(layout: Path, rootfs: Path, machine: str) -> str:
    """One layer; gives the manifest's digest."""
    (layout / "blobs/sha256").mkdir(parents=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(rootfs.rglob("*")):
            tar.add(path, path.relative_to(rootfs).as_posix(), recursive=False, filter=_plain)
    diff_id = digest_bytes(buffer.getvalue())
    layer = _blob(layout, gzip.compress(buffer.getvalue(), 1, mtime=1), f"{OCI}.layer.v1.tar+gzip")
    environment = [
        "PYTHONPATH=/opt/helix/platform", "PYTHONHOME=/usr", "LD_LIBRARY_PATH=/usr/lib", "PYTHONDONTWRITEBYTECODE=1",
        f"TEST_MACHINE_CLASS={machine}",
    ]  # fmt: skip
    settings = {"User": "65532:65532", "WorkingDir": "/opt/helix/model", "Env": environment}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _blob(layout, dumps(config), f"{OCI}.config.v1+json"),
        "layers": [layer],
    }
    entry = _blob(layout, dumps(manifest), f"{OCI}.manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": "image"}}],
    }
    (layout / "index.json").write_bytes(dumps(index))
    (layout / "oci-layout").write_bytes(dumps({"imageLayoutVersion": "1.0.0"}))
    return str(entry["digest"])


def _blob(layout: Path, data: bytes, kind: str) -> dict[str, Json]:
    name = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / name).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}


def _plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    item.mtime = 1
    return item


def _copy_python(rootfs: Path) -> None:
    """The interpreter that runs these tests, with its libraries."""
    base, version = Path(sys.base_prefix), f"python3.{sys.version_info.minor}"
    binary = rootfs / "usr/bin/python3.11"
    binary.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), binary)
    shutil.copytree(
        base / "lib" / version, rootfs / "usr/lib" / version, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=False,
        ignore_dangling_symlinks=True,
    )  # fmt: skip
    (rootfs / "usr/link").symlink_to("lib")


def _copy_libraries(rootfs: Path) -> None:
    """What the interpreter and the extension modules are linked with."""
    for path in _libraries(rootfs / "usr/bin/python3.11", *rootfs.rglob("*.so")):
        loader = path.name.startswith("ld-linux")
        target = rootfs / ("lib64" if loader else "usr/lib") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _libraries(*binaries: Path) -> set[Path]:
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    return {Path(name) for name in re.findall(r"(/\S+) \(0x", done.stdout)}


def refuse(shard: str, error: LineageError) -> None:
    """For logs in which nothing is damaged."""
    raise error
