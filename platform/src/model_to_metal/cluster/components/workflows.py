"""Argo Workflows: its controller on the node, its executor as an image of ours."""

from __future__ import annotations

from model_to_metal.cluster.components.interface import ACCOUNTS, BIN, Cluster, apply, definitions, kubeconfig
from model_to_metal.cluster.node.component import Component

NAMESPACE = "argo"
"""Where the controller's settings are, and the workflows that it runs."""


def components(cluster: Cluster) -> list[Component]:
    """Definitions, rights, controller."""
    name = "workflow-controller"
    return [
        *definitions("workflow-crds", "argo-workflows-crds", needs=("kube-apiserver",)),
        apply("workflows", needs=("kube-apiserver",)),
        Component(
            name,
            (
                str(BIN / name), f"--kubeconfig={kubeconfig(name)}", "--namespaced", f"--managed-namespace={NAMESPACE}",
                f"--executor-image={cluster.images['argoexec']}", "--executor-image-pull-policy=IfNotPresent",
                "--loglevel=info", "--log-format=json", "--workflow-workers=4", "--pod-cleanup-workers=2",
                "--qps=50", "--burst=100",
            ),
            needs=("workflow-crds-served", "workflows", "dns"),
            ready="http://127.0.0.1:6060/healthz",
            account=ACCOUNTS[name],
            environment={
                "LEADER_ELECTION_DISABLE": "true",
                "KUBECONFIG": str(kubeconfig(name)),
                "INFORMER_WRITE_BACK": "false",
                "DEFAULT_REQUEUE_TIME": "1s",
                "POD_NAMES": "v2",
            },
        ),
    ]  # fmt: skip
