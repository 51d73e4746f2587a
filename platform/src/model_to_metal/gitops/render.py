"""Render `gitops/argocd` as Argo CD would, and hold schemas and our rules against what comes out.

Takes the folder's files (path → bytes, of a commit or of the working tree); gives faults. kustomize
and kubeconform run on a copy, offline: a base from elsewhere cannot be fetched, and schemas are
those beside kubeconform's go.mod (`schemas` makes them).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from helix_lineage.paths import State
from model_to_metal.errors import GitopsError, ToolError
from model_to_metal.gitops import argo_rules, overlay, rules, tree_rules
from model_to_metal.gitops.layout import APPS, ENVIRONMENTS, POLICIES, ROOT, folder
from model_to_metal.gitops.manifests import Manifest, ManifestFault, parse
from model_to_metal.gitops.policy import Policy
from model_to_metal.gitops.tree_rules import SAMPLE
from model_to_metal.host import tools
from model_to_metal.host.process import attempt, run

SCHEMAS = tools.SOURCES / "kubeconform" / "schemas"
_DIGEST = "sha256:" + "5" * 64
_TIMEOUT_S = 60.0

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Renderer:
    """kustomize and kubeconform."""

    kustomize: Path
    kubeconform: Path

    @classmethod
    def ready(cls, state: State, report: tools.Progress = lambda _line: None) -> Self:
        """Both tools, built if need be. Raises ToolError."""
        return cls(tools.ensure("kustomize", state, report), tools.ensure("kubeconform", state, report))

    def build(self, root: Path, place: str) -> list[Manifest]:
        """The manifests of one kustomization. Raises GitopsError when it cannot be rendered."""
        try:
            text = run([self.kustomize, "build", root / place], timeout_s=_TIMEOUT_S, env={"PATH": "/nowhere"})
        except ToolError as error:
            raise GitopsError(f"kustomize refuses it: {error.what}", where=place) from error
        return parse(text, where=place)

    def conform(self, manifests: list[Manifest]) -> list[ManifestFault]:
        """What the schemas hold against them. An unknown kind is a fault."""
        pattern = f"{SCHEMAS}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
        command: list[str | Path] = [self.kubeconform, "-strict", "-output", "json", "-schema-location", pattern, "-"]
        stream = "\n---\n".join(json.dumps(manifest) for manifest in manifests).encode()
        done = attempt(command, stdin=stream, timeout_s=_TIMEOUT_S)
        try:
            rows = json.loads(done.stdout)["resources"]
        except (ValueError, KeyError, TypeError) as error:
            complaint = done.stderr.decode(errors="replace").strip()[-1000:]
            raise ToolError(f"kubeconform failed: {complaint}", where=str(SCHEMAS)) from error
        return [
            ManifestFault(
                f"{row['kind']}/{row['name']}", "schema", row["msg"].strip(), "see the field in Kubernetes' reference"
            )
            for row in rows or ()
            if row["status"] not in ("statusValid", "statusSkipped")
        ]


def check_model(renderer: Renderer, files: Files, environment: str, model: str) -> list[ManifestFault]:
    """Faults of one model in one environment. Raises GitopsError when it cannot be rendered."""
    if model != SAMPLE and (found := tree_rules.check_model(files, environment, model)):
        return found
    with _written(files) as root:
        return _model(renderer, root, environment, model)


def check_all(renderer: Renderer, files: Files) -> list[ManifestFault]:
    """Faults of everything under `gitops/argocd`: its files, Argo CD's objects, policies, each model, and a sample.

    Files that don't belong there are all that is reported while there are any: they are not rendered.
    """
    if odd := tree_rules.check(files):
        return odd
    environments = {path.split("/")[3] for path in files if path.startswith(f"{ENVIRONMENTS}/") and path.count("/") > 3}
    samples: dict[str, bytes] = {}
    for name in sorted(environments):
        samples |= sample(files, name)
    every = {**files, **samples}
    found = check_argo(renderer, every)
    with _written(every) as root:
        for place in sorted({path.rpartition("/")[0] for path in every if _is_model(path)}):
            _, environment, model = place.removeprefix(ROOT).strip("/").split("/")
            found += _model(renderer, root, environment, model)
    return sorted(found)


def check_argo(renderer: Renderer, files: Files) -> list[ManifestFault]:
    """Faults of Argo CD's objects and of the policies."""
    with _written(files) as root:
        if f"{ROOT}/root.yaml" not in files:
            raise GitopsError("the file that Argo CD starts from is missing", where=f"{ROOT}/root.yaml")
        argo = renderer.build(root, APPS) + parse(files[f"{ROOT}/root.yaml"], where="root.yaml")
        return sorted(argo_rules.check(argo) + renderer.conform(argo + renderer.build(root, POLICIES)))


def sample(files: Files, environment: str) -> dict[str, bytes]:
    """The sample's files in an environment."""
    place = f"{ENVIRONMENTS}/{environment}/policy.json"
    if place not in files:
        raise GitopsError("the environment has no policy", where=place)
    return overlay.files(
        environment,
        SAMPLE,
        registry=Policy.parse(files[place], where=place).registry,
        repository=f"helix/{SAMPLE}",
        image=_DIGEST,
        release=b"{}",
        promotion=b"{}",
    )


def _model(renderer: Renderer, root: Path, environment: str, model: str) -> list[ManifestFault]:
    manifests = renderer.build(root, folder(environment, model))
    found = rules.check(manifests) + rules.belongs_to_its_model(manifests, environment, model)
    found += renderer.conform(manifests)
    return [ManifestFault(f"{environment}: {fault.where}", fault.rule, fault.message, fault.fix) for fault in found]


def _is_model(path: str) -> bool:
    """Is it the kustomization of a model in an environment?"""
    parts = path.removeprefix(f"{ENVIRONMENTS}/").split("/")
    return (
        path.startswith(f"{ENVIRONMENTS}/")
        and len(parts) == 3
        and parts[2] == "kustomization.yaml"
        and (not parts[1].startswith("_"))
    )


@contextmanager
def _written(files: Files) -> Iterator[Path]:
    """The files in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="helix-gitops-") as name:
        root = Path(name)
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        yield root
