"""Kyverno's admission controller: which images may run is decided here, by signature and provenance."""

from __future__ import annotations

from model_to_metal.cluster.components.interface import ACCOUNTS, BIN, Cluster, apply, definitions, kubeconfig
from model_to_metal.cluster.layout import NODE_HOME
from model_to_metal.cluster.node.component import Component

NAMESPACE = "kyverno"
_PORT = 9443


def components(cluster: Cluster) -> list[Component]:
    """Definitions, rights, controller."""
    node = cluster.addresses.node
    nobody = f"system:serviceaccount:{NAMESPACE}:nobody"
    return [
        *definitions("kyverno-crds", "kyverno-crds", needs=("kube-apiserver",)),
        apply("kyverno-rights", needs=("kube-apiserver",)),
        Component(
            "kyverno",
            (
                str(BIN / "kyverno"), f"--kubeconfig={kubeconfig('kyverno')}", f"--serverIP={node}:{_PORT}",
                f"--webhookServerHost={node}", f"--webhookServerPort={_PORT}", f"--servicePort={_PORT}",
                "--caSecretName=kyverno-ca", "--tlsSecretName=kyverno-tls", "--tlsKeyAlgorithm=ECDSA",
                # Keys are given, not looked up: nothing asks a server outside.
                "--enableTuf=false", "--allowInsecureRegistry", "--admissionReports=false", "--disableMetrics=true",
                "--controllerRuntimeMetricsAddress=127.0.0.1:8090", "--leaderElectionRetryPeriod=1s",
                f"--backgroundServiceAccountName={nobody}", f"--reportsServiceAccountName={nobody}", "--v=2",
            ),
            needs=("kyverno-crds-served", "kyverno-rights"),
            ready=f"tcp://{node}:{_PORT}",
            account=ACCOUNTS["kyverno"],
            environment={
                "KYVERNO_NAMESPACE": NAMESPACE,
                "KYVERNO_SERVICEACCOUNT_NAME": "kyverno",
                "KYVERNO_POD_NAME": "kyverno-node",
                "KYVERNO_DEPLOYMENT": "kyverno",
                "KYVERNO_SVC": "kyverno-svc",
                "INIT_CONFIG": "kyverno",
                "METRICS_CONFIG": "kyverno-metrics",
                "TUF_ROOT": str(NODE_HOME / "tmp" / "tuf"),
            },
        ),
    ]  # fmt: skip
