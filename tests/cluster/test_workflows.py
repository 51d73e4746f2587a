"""Argo Workflows on the cluster: it runs, it fails, and its pods may no more than a step must."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.support import Running
from tests.waiting import until

pytestmark = pytest.mark.cluster
NAMESPACE = "argo"


def workflow(cluster: Running, name: str, *arguments: str) -> dict[str, Any]:
    """Two steps, one after the other; the second asks what `arguments` say."""
    first = {"name": "first", "container": _container(cluster, "lookup", "git.helix-system.svc.cluster.local")}
    second = {"name": "second", "container": _container(cluster, *arguments)}
    main = {"name": "main", "steps": [[{"name": part, "template": part}] for part in ("first", "second")]}
    return {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "entrypoint": "main", "serviceAccountName": "pipeline", "templates": [main, first, second],
            "automountServiceAccountToken": False, "executor": {"serviceAccountName": "pipeline"},
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    }  # fmt: skip


def _container(cluster: Running, *arguments: str) -> dict[str, Any]:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "image": cluster.image("probe"), "command": ["/bin/probe"], "args": list(arguments), "securityContext": context,
    }  # fmt: skip


def ended(cluster: Running, value: dict[str, Any]) -> dict[str, Any]:
    """Submit a workflow; gives its status once it has ended."""
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(value))
    status: dict[str, Any] = {}

    def over() -> bool:
        said = cluster.kubectl(f"--namespace={NAMESPACE}", "get", "workflow", value["metadata"]["name"], "-o", "json")
        status.update(json.loads(said.stdout).get("status") or {})
        return status.get("phase") in ("Succeeded", "Failed", "Error")

    until(over, f"the workflow {value['metadata']['name']} has ended")
    return status


def test_steps_run_one_after_another_in_images_by_digest(cluster: Running) -> None:
    status = ended(cluster, workflow(cluster, "good", "get", "http://web.default.svc.cluster.local/"))
    assert status["phase"] == "Succeeded", status
    steps = {node["displayName"]: node for node in status["nodes"].values() if node["type"] == "Pod"}
    assert steps["first"]["finishedAt"] <= steps["second"]["startedAt"]
    said = cluster.kubectl(f"--namespace={NAMESPACE}", "get", "pods", "-o", "json").stdout
    for pod in json.loads(said)["items"]:
        containers = pod["spec"]["containers"] + pod["spec"]["initContainers"]
        assert all("@sha256:" in container["image"] for container in containers)


def test_a_step_that_fails_fails_the_workflow(cluster: Running) -> None:
    status = ended(cluster, workflow(cluster, "bad", "lookup", "nobody.default.svc.cluster.local"))
    assert status["phase"] == "Failed"
    assert "exit code 1" in json.dumps(status["nodes"])


def test_a_step_that_could_gain_rights_is_refused(cluster: Running) -> None:
    value = workflow(cluster, "greedy", "lookup", "git.helix-system.svc.cluster.local")
    del value["spec"]["templates"][1]["container"]["securityContext"]
    status = ended(cluster, value)
    assert status["phase"] in ("Failed", "Error")
    assert "violates PodSecurity" in json.dumps(status)


def test_the_controller_reads_no_secret_of_another_namespace(cluster: Running) -> None:
    ask = ["auth", "can-i", "get", "secrets", "--as=helix:workflow-controller"]
    assert cluster.kubectl(*ask, f"--namespace={NAMESPACE}", check=False).stdout.strip() == "yes"
    assert cluster.kubectl(*ask, "--namespace=kube-system", check=False).stdout.strip() == "no"
