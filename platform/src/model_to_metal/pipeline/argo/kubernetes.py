"""A cluster's API, through kubectl."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_to_metal.errors import PipelineError, ToolError
from model_to_metal.host.process import run

NAMESPACE = "argo"
"""Where workflows run."""
_TIMEOUT_S = 60.0


class WorkflowsAway(PipelineError):
    """The cluster does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """One cluster, as one user."""

    kubectl: Path
    kubeconfig: Path

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create objects, or make them equal to what is given."""
        value = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self._run("apply", "--server-side", "--force-conflicts", "--field-manager=helix", "--filename=-", given=value)

    def create(self, value: Mapping[str, Any]) -> str:
        """Create one object; gives its name."""
        return str(json.loads(self._run("create", "--filename=-", "--output=json", given=value))["metadata"]["name"])

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object."""
        return dict(json.loads(self._run("get", kind, name, "--output=json")))

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object, or None when there is none of that name."""
        said = self._run("get", kind, name, "--output=json", "--ignore-not-found")
        return dict(json.loads(said)) if said.strip() else None

    def _run(self, *arguments: str, given: Mapping[str, Any] | None = None) -> bytes:
        command: list[str | Path] = [
            self.kubectl,
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={NAMESPACE}",
            *arguments,
        ]
        try:
            return run(command, stdin=json.dumps(given).encode() if given else b"", timeout_s=_TIMEOUT_S)
        except ToolError as error:
            raise WorkflowsAway(
                f"the cluster refuses, or does not answer: {error.raw or error.what}",
                where=str(self.kubeconfig), fix="helix cluster status",
            ) from error  # fmt: skip


def secret(name: str, files: Mapping[str, bytes], labels: Mapping[str, str]) -> dict[str, Any]:
    """A secret that holds files."""
    data = {key: base64.b64encode(value).decode() for key, value in files.items()}
    meta = {"name": name, "namespace": NAMESPACE, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "data": data}
