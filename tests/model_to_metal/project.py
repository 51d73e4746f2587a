"""A checkout to spoil: the working tree's sources with a small model `toy`, as one Git commit."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helix_lineage.attestations.trust import Trust
from helix_lineage.formats.canonical import Json, file_digest
from helix_lineage.records.chain import Artifact, Record
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline.engine import StageRun
from model_to_metal.stages import interface as stages
from model_to_metal.stages.interface import StageResult
from model_to_metal.supply_chain import cache_keys, keys
from model_to_metal.supply_chain.cache_keys import CacheSigner

ROOT = Path(__file__).resolve().parents[2]
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
"""When the tests' cache keys begin to hold, for a year."""

MODEL_TOML = """
format = 1
name = "toy"
version = "1"

[stages]
data = "toy_model.data:extract"
import = "toy_model.weights:import_weights"
export = "toy_model.export:export"
evaluate = "toy_model.evaluate:evaluate"

[target]
name = "onnxruntime-cpu"

[guard]
task = "twice"
files = { text = "golden/text.txt" }
inputs = { values = [1.0, 2.5] }

[serve]
model = "toy_model.model:Toy"
runner = "onnxruntime"
artifacts = ["factor.txt"]
lane = "strict"

[limits]
request_bytes = 1000

[tasks.twice]
summary = "Values times a factor."
inputs.text = { datatype = "BYTES", shape = [1], required = true, summary = "Ignored." }
inputs.values = { datatype = "FP32", shape = [-1], required = true, summary = "Numbers." }
outputs.products = { datatype = "FP32", shape = [-1], summary = "Numbers." }
"""

MODEL_PY = '''
"""A model without a graph: products with the factor that export wrote."""

import numpy as np

from helixserve.model import tensors
from helixserve.model.contract import Model


class Toy(Model):
    """Task `twice`."""

    name = "toy"

    def __init__(self, factor, contract):
        self.factor = factor
        self.contract = contract

    @classmethod
    def load(cls, artifacts, contract):
        return cls(np.float32(artifacts["factor.txt"].decode()), contract)

    def resolve(self, task, given, draw_seed):
        return tuple(self.contract.task(task).resolve(given, draw_seed).values())

    def count(self, resolved):
        return 1

    def predict(self, resolved, items):
        values = tensors.to_array(tensors.find(resolved, "values"))
        for _ in items:
            yield (tensors.from_array("products", values * self.factor),)
'''

FILES: Mapping[str, str] = {
    "model.toml": MODEL_TOML,
    "README.md": "# toy\n",
    "bentofile.yaml": 'service: "toy_model.service:Toy"\n',
    "pyproject.toml": (
        '[project]\nname = "toy-model"\nversion = "1"\n'
        '[dependency-groups]\nserve = ["numpy>=2"]\nbuild = ["numpy==2.4.6"]\n'
    ),
    "environment/serve.lock": f"numpy==2.4.6 --hash=sha256:{'1' * 64}  # numpy-2.4.6-py3-none-any.whl\n",
    "environment/build.lock": f"numpy==2.4.6 --hash=sha256:{'1' * 64}  # numpy-2.4.6-py3-none-any.whl\n",
    "golden/text.txt": "golden\n",
    "data/upstream.lock": "",
    "dvc.yaml": (
        "stages:\n  weights:\n    cmd: python -m toy_model.data\n    deps:\n    - src/toy_model/data.py\n"
        "    outs:\n    - data/weights\n"
    ),
    "src/toy_model/__init__.py": "",
    "src/toy_model/data.py": (
        "from pathlib import Path\n\n\ndef extract(name, downloads, output):\n    pass\n\n\n"
        'if __name__ == "__main__":\n    Path("data/weights").mkdir(parents=True)\n'
        '    Path("data/weights/factor.txt").write_text("2")\n'
    ),
    "src/toy_model/shared.py": '"""What import and export share."""\n\nNAME = "factor"\n',
    "src/toy_model/weights.py": (
        "from toy_model.shared import NAME\n\n\ndef import_weights(data, output):\n"
        '    (output / f"{NAME}.safetensors").write_bytes((data / "weights" / "factor.txt").read_bytes())\n'
    ),
    "src/toy_model/export.py": (
        "def export(weights, output):\n    from toy_model import shared\n\n"
        '    (output / "factor.txt").write_bytes((weights / f"{shared.NAME}.safetensors").read_bytes())\n'
    ),
    "src/toy_model/evaluate.py": (
        "def evaluate(artifacts, weights, data, golden):\n"
        '    value = float((artifacts / "factor.txt").read_text())\n'
        '    return [{"case": "toy", "metric": "factor", "value": value, "allowed": 2.0}]\n'
    ),
    "src/toy_model/model.py": MODEL_PY,
}
"""Path below models/toy → text."""

DVC_LOCK = """schema: '2.0'
stages:
  weights:
    cmd: python -m toy_model.data
    deps:
    - path: src/toy_model/data.py
      hash: md5
      md5: {data}
      size: {size}
    outs:
    - path: data/weights
      hash: md5
      md5: {out}.dir
      size: 1
      nfiles: 1
"""


def git(folder: Path, *arguments: str) -> str:
    """Run Git in `folder`, as a committer who exists only here."""
    identity = ["-c", "user.name=Helix tests", "-c", "user.email=tests@helix.example", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def copy_repository(target: Path, *folders: str) -> Path:
    """The working tree's files under `folders` (default: all), as Git would see them, in one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *folders],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    git(target, "init", "--quiet", "--initial-branch", "main")
    commit(target, "the working tree under test")
    return target


def commit(folder: Path, message: str) -> str:
    """Commit everything; gives the commit's id."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def write_toy(folder: Path) -> Path:
    """The folder of the model `toy`, complete; gives it."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "data" / ".gitignore").write_text("/weights\n")
    source = (folder / "src/toy_model/data.py").read_bytes()
    (folder / "dvc.lock").write_text(DVC_LOCK.format(data=_md5(source), size=len(source), out=_directory_md5()))
    return folder


def make_project(target: Path) -> Checkout:
    """A checkout with the platform's sources and `toy` as its only model, committed."""
    target.mkdir(parents=True, exist_ok=True)
    copy_repository(target, "lineage/src", "platform/src", "platform/nix", "flake.nix", "requirements", ".gitignore")
    write_toy(target / "models" / "toy")
    commit(target, "toy")
    return Checkout(target)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _directory_md5() -> str:
    """DVC's identity of a folder with the one file factor.txt that holds `2`."""
    listing = [{"md5": _md5(b"2"), "relpath": "factor.txt"}]
    return _md5(json.dumps(listing, sort_keys=True).encode())


def make_cache_signer(
    folder: Path, domain: str = "laptop", *, known: Sequence[CacheSigner] = (), since: datetime = SINCE
) -> CacheSigner:
    """A cache key of that domain, and a trust root that names it and those known."""
    folder.mkdir(parents=True, exist_ok=True)
    cache_keys.generate(folder / f"{domain}.key", folder / f"{domain}.pub")
    root = keys.trust((folder / f"{domain}.pub").read_bytes(), since=since, role=keys.CACHE, builder=domain)
    trust = Trust.parse(json.dumps(root).encode())
    others = [key for cache_signer in known for key in cache_signer._trust.keys]
    return CacheSigner.open(folder / f"{domain}.key", Trust((*trust.keys, *others)), since)


@dataclass
class Bench:
    """A workshop that runs the stages of `toy` in this process: Nix and sandboxes have tests of their own."""

    made: list[str] = field(default_factory=list)
    """Names of the stages that were made, in order."""
    found: dict[str, dict[str, Json]] = field(default_factory=dict)
    """What the gates find."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Stage → content of its one file."""
    complete: bool = True

    def make(self, stage_run: StageRun) -> tuple[Record, Path]:
        """Write one file for the stage and make its record."""
        name = stage_run.plan.stage
        self.made.append(name)
        path = stage_run.scratch / f"{name}.txt"
        path.write_bytes(self.files.get(name, f"{name} of toy".encode()))
        outputs: tuple[Artifact, ...] = (Artifact(path.name, file_digest(path), path.stat().st_size),)
        given: dict[str, Any] = {
            "data": {"dvc_lock": "sha256:" + "1" * 64, "files": []},
            "guard": {"passed": True, "rules": ["contract"], "findings": []},
            "regress": {"passed": True, "cases": []},
            "build": {"image": "sha256:" + "2" * 64, "filesystem": "sha256:" + "3" * 64},
            "attest": {"image": "sha256:" + "2" * 64},
        }
        found = {**given.get(name, {}), **self.found.get(name, {})}
        made = StageResult(plan=stage_run.plan.plan, parents=stage_run.parents, found=found, outputs=outputs)
        return stages.record(stage_run.spec, made), stage_run.scratch

    def is_complete(self, stage_run: StageRun, record: Record) -> bool:
        """As told."""
        return self.complete
