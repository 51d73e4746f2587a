"""Data: `dvc.yaml` re-derived and checked against `dvc.lock` → `DataCommit`.

Takes the model's folder and the downloaded archives; runs DVC on a copy. DVC knows MD5 only,
so the record adds a SHA-256 manifest of our own. Runs in the host environment, where DVC is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from helix_lineage.errors import reason
from helix_lineage.formats.canonical import Json, file_digest
from helix_lineage.records.chain import DataCommit
from model_to_metal.errors import StageError
from model_to_metal.stages.interface import Runs, StageSpec, StageTask

SPEC = StageSpec(
    name="data",
    record=DataCommit,
    runs=Runs.HOST,
    environment="host",
    parameters=("model",),
    hook=("stages", "data"),
    reads=("dvc.yaml", "dvc.lock", "data/"),
    gives={"downloads": "downloads"},
    target=False,
)

DATA = "data/"
"""DVC's outputs lie under this folder; an output's name in the record is relative to it."""


def make(task: StageTask) -> dict[str, Json]:
    """Run `dvc repro` on a copy and keep its outputs. Raises StageError when `dvc.lock` would change."""
    lock = task.model / "dvc.lock"
    if not lock.is_file():
        raise StageError("the data is not locked", where="dvc.lock", fix=f"dvc repro models/{task.model.name}/dvc.yaml")
    with tempfile.TemporaryDirectory(prefix="helix-dvc-") as scratch:
        model = _workspace(task, Path(scratch))
        _dvc(["repro", "--no-commit", "dvc.yaml"], model)
        _compare(_outs(lock), _outs(model / "dvc.lock"))
        if (model / "dvc.lock").read_bytes() != lock.read_bytes():
            raise StageError(
                "dvc.lock is out of step with dvc.yaml or its dependencies",
                where=f"models/{task.model.name}/dvc.lock",
                fix=f"dvc repro models/{task.model.name}/dvc.yaml",
            )
        return {"dvc_lock": file_digest(lock), "files": _keep(model, sorted(_outs(lock)), task.output)}


def _workspace(task: StageTask, scratch: Path) -> Path:
    """A DVC repository of its own: the model's folder, and the downloads where dvc.yaml looks for them."""
    model = scratch / "models" / task.model.name
    shutil.copytree(task.model, model)
    (scratch / ".helix").mkdir()
    (scratch / ".helix" / "downloads").symlink_to(task.input("downloads"))
    _dvc(["init", "--no-scm", "--quiet"], scratch)
    return model


def _dvc(arguments: list[str], folder: Path) -> None:
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc-site"),
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dvc", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageError(f"dvc {arguments[0]} failed: {(done.stdout + done.stderr).strip()[-2000:]}", where="dvc.yaml")


def _outs(lock: Path) -> dict[str, str]:
    """Path → MD5 of DVC's outputs, from a `dvc.lock`. Raises StageError."""
    import yaml  # noqa: PLC0415  # DVC brings it; no other stage may need it

    try:
        stages: dict[str, Any] = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        outs = {str(out["path"]): str(out["md5"]) for stage in stages.values() for out in stage.get("outs", [])}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise StageError(f"dvc.lock cannot be read: {reason(error)}", where=str(lock)) from error
    if astray := sorted(path for path in outs if not path.startswith(DATA) or ".." in path):
        raise StageError(
            f"outputs of dvc.yaml lie under {DATA}, and these do not: {', '.join(astray)}", where=str(lock)
        )
    return outs


def _compare(locked: dict[str, str], derived: dict[str, str]) -> None:
    for path in sorted({*locked, *derived}):
        if locked.get(path) != derived.get(path):
            raise StageError(
                f"re-derived, {path} has MD5 {derived.get(path)}, and dvc.lock has {locked.get(path)}", where=path
            )


def _keep(model: Path, outs: list[str], output: Path) -> list[dict[str, Json]]:
    """Copy DVC's outputs and give each file's MD5."""
    kept = []
    for out in outs:
        found = sorted((model / out).rglob("*")) if (model / out).is_dir() else [model / out]
        for path in (path for path in found if path.is_file()):
            name = path.relative_to(model / DATA).as_posix()
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output / name)
            with path.open("rb") as file:
                # DVC's own identity of a file; no security rests on it.
                kept.append({"path": name, "md5": hashlib.file_digest(file, _md5).hexdigest()})
    return sorted(kept, key=lambda row: row["path"])


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
