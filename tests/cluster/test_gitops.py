"""Argo CD on the cluster: a commit that is pushed is what runs, and what is changed by hand is changed back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster import support
from tests.cluster.support import Running
from tests.waiting import until

pytestmark = pytest.mark.cluster
URL = "http://git.helix-system.svc.cluster.local:3080/gitops.git"
NAMESPACE = "synced"


class Repository:
    """A clone of the cluster's Git repository."""

    def __init__(self, cluster: Running, folder: Path) -> None:
        self.folder = folder
        token = cluster.layout.git_token.read_text()
        self._push = f"{cluster.said['git'].replace('http://', f'http://test:{token}@')}/gitops.git"
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, replicas: int) -> str:
        """Push a commit whose deployment has that many replicas; gives its name."""
        (self.folder / "app").mkdir(exist_ok=True)
        (self.folder / "app" / "kustomization.yaml").write_text("resources: [deployment.yaml]\n")
        (self.folder / "app" / "deployment.yaml").write_text(json.dumps(self.deployment(replicas)))
        self._git("add", "--all")
        self._git("commit", "--quiet", f"--message={replicas} replicas")
        self._git("push", "--quiet", "--force", self._push, "main")
        return self._git("rev-parse", "HEAD").strip()

    image = ""

    def deployment(self, replicas: int) -> dict[str, object]:
        pod = {"containers": [{"name": "probe", "image": self.image, "args": ["pause"]}],
               "terminationGracePeriodSeconds": 0}  # fmt: skip
        template = {"metadata": {"labels": {"app": "app"}}, "spec": pod}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "app"}}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": spec}

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@helix.example"]
        command = ["git", "-C", str(self.folder), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def application() -> tuple[dict[str, object], dict[str, object]]:
    here = "https://kubernetes.default.svc"
    project = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject",
        "metadata": {"name": "test", "namespace": "argocd"},
        "spec": {"sourceRepos": [URL], "destinations": [{"server": here, "namespace": NAMESPACE}]},
    }  # fmt: skip
    app = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": "app", "namespace": "argocd"},
        "spec": {
            "project": "test", "source": {"repoURL": URL, "targetRevision": "main", "path": "app"},
            "destination": {"server": here, "namespace": NAMESPACE},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
        },
    }  # fmt: skip
    return project, app


def test_a_commit_is_synced_and_drift_is_healed(cluster: Running, tmp_path: Path) -> None:
    repository = Repository(cluster, tmp_path)
    repository.image = cluster.image("probe")
    first = repository.commit(1)
    cluster.apply(support.namespace(NAMESPACE), *application())

    def is_synced(commit: str) -> bool:
        status = json.loads(cluster.kubectl("--namespace=argocd", "get", "application", "app", "-o", "json").stdout)
        status = status.get("status", {})
        found = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
        return found == ("Synced", "Healthy") and status["sync"]["revision"] == commit

    def replicas() -> str:
        path = "jsonpath={.spec.replicas}"
        return cluster.kubectl(f"--namespace={NAMESPACE}", "get", "deployment", "app", "-o", path).stdout

    until(lambda: is_synced(first), "the first commit is synced")
    assert replicas() == "1"
    second = repository.commit(2)
    until(lambda: is_synced(second), "the second commit is synced")
    assert replicas() == "2"
    cluster.kubectl(f"--namespace={NAMESPACE}", "scale", "deployment", "app", "--replicas=0")
    until(lambda: replicas() == "2", "what was changed by hand is changed back")
    cluster.kubectl(f"--namespace={NAMESPACE}", "delete", "deployment", "app", "--wait=false")
    until(lambda: is_synced(second), "what was deleted by hand is back")


def test_a_source_that_the_project_does_not_name_is_refused(cluster: Running) -> None:
    project, app = application()
    other = {**app, "metadata": {"name": "stranger", "namespace": "argocd"}}
    other["spec"] = {**app["spec"], "source": {"repoURL": URL.replace("gitops", "other"), "path": "app"}}  # type: ignore[dict-item]
    cluster.apply(project, other)

    def conditions() -> str:
        path = "jsonpath={.status.conditions[*].message}"
        return cluster.kubectl("--namespace=argocd", "get", "application", "stranger", "-o", path).stdout

    until(lambda: "not permitted in project" in conditions(), "the source is refused")
    cluster.kubectl("--namespace=argocd", "delete", "application", "stranger")
