"""The components of a Kubernetes node, with the registry and the Git server beside them.

Takes a cluster's addresses and identity; gives the components in the form in which the node
starts them. Every one but the container runtime, the kubelet and kube-proxy runs under an
account of its own, without capabilities, and reads its own credentials only.
"""

from __future__ import annotations

from model_to_metal.cluster.components.interface import (
    ACCOUNTS,
    BIN,
    CONFIG,
    NODE,
    PKI,
    Cluster,
    apply,
    kubeconfig,
    wait,
)
from model_to_metal.cluster.layout import NODE_HOME
from model_to_metal.cluster.network import API_PORT, GIT_PORT, REGISTRY_PORT, Addresses
from model_to_metal.cluster.node.component import ROOT, Component

_ETCD = "http://127.0.0.1:2379"
_WEB_HOOKS = "MutatingAdmissionWebhook,ValidatingAdmissionWebhook,ValidatingAdmissionPolicy"


def components(cluster: Cluster) -> list[Component]:
    """The node and what stands beside it."""
    return [
        *_servers(cluster),
        *_control_plane(cluster),
        *_workers(cluster),
        apply("system", needs=("kube-apiserver",)),
        apply("coredns", needs=("kube-apiserver",)),
        wait("node-ready", "kube-system", f"node/{NODE}", "Ready", needs=("kubelet", "system")),
        wait("dns", "kube-system", "deployment/coredns", "Available", needs=("node-ready", "coredns", "kube-proxy")),
    ]


def _servers(cluster: Cluster) -> list[Component]:
    at = cluster.addresses
    registry = (
        str(BIN / "olareg"), "serve", f"--addr={at.node}", f"--port={REGISTRY_PORT}",
        f"--dir={NODE_HOME / 'registry'}", "--gc-frequency=-1ns",
    )  # fmt: skip
    git = (str(BIN / "git-server"), f"{at.node}:{GIT_PORT}", str(NODE_HOME / "git"), str(PKI / "git" / "token"))
    # A repository's owner is the account that serves it; Git asks for a home to look for settings in.
    return [
        Component("registry", registry, ready=f"http://{at.registry}/v2/", account=ACCOUNTS["registry"]),
        Component("git", git, ready=f"tcp://{at.node}:{GIT_PORT}", account=ACCOUNTS["git"]),
    ]


def _control_plane(cluster: Cluster) -> list[Component]:
    return [
        Component(
            "etcd",
            (
                str(BIN / "etcd"), f"--data-dir={NODE_HOME / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
                f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
            ),
            ready=f"{_ETCD}/readyz",
            account=ACCOUNTS["etcd"],
        ),
        Component(
            "kube-apiserver",
            (str(BIN / "kube-apiserver"), *_api_server(cluster.addresses)),
            needs=("etcd",),
            ready=f"{cluster.addresses.server}/readyz",
            account=ACCOUNTS["kube-apiserver"],
            # Without a limit it grows to a gigabyte. It holds 300 MB with all kinds served, and a limit near that makes
            # the collector run without an end: 400 MiB took six tenths of a core.
            environment={"GOMEMLIMIT": "800MiB"},
        ),
        Component(
            "kube-controller-manager",
            (str(BIN / "kube-controller-manager"), *_controllers()),
            needs=("kube-apiserver",),
            ready=None,
            account=ACCOUNTS["kube-controller-manager"],
        ),
        Component(
            "kube-scheduler",
            (
                str(BIN / "kube-scheduler"), *_clients("kube-scheduler"), "--leader-elect=false",
                "--bind-address=127.0.0.1", "--profiling=false",
            ),
            needs=("kube-apiserver",),
            account=ACCOUNTS["kube-scheduler"],
        ),
    ]  # fmt: skip


def _api_server(at: Addresses) -> list[str]:
    own = PKI / "kube-apiserver"
    return [
        f"--etcd-servers={_ETCD}", f"--advertise-address={at.node}", f"--bind-address={at.node}",
        f"--secure-port={API_PORT}", f"--service-cluster-ip-range={at.services}",
        f"--client-ca-file={PKI / 'ca.crt'}",
        f"--tls-cert-file={own / 'serving.crt'}", f"--tls-private-key-file={own / 'serving.key'}",
        f"--kubelet-client-certificate={own / 'kubelet.crt'}", f"--kubelet-client-key={own / 'kubelet.key'}",
        f"--kubelet-certificate-authority={PKI / 'ca.crt'}", "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={own / 'tokens.pub'}",
        f"--service-account-signing-key-file={own / 'tokens.key'}",
        "--authorization-mode=Node,RBAC", f"--enable-admission-plugins=NodeRestriction,{_WEB_HOOKS}",
        "--feature-gates=ImageVolume=true", "--allow-privileged=true", "--profiling=false",
        f"--requestheader-client-ca-file={PKI / 'front.crt'}", "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--audit-policy-file={CONFIG / 'audit.yaml'}", f"--audit-log-path={NODE_HOME / 'audit' / 'audit.log'}",
        "--audit-log-maxsize=50", "--audit-log-maxbackup=2",
    ]  # fmt: skip


def _controllers() -> list[str]:
    own = PKI / "kube-controller-manager"
    return [
        *_clients("kube-controller-manager"), f"--root-ca-file={PKI / 'ca.crt'}",
        f"--service-account-private-key-file={own / 'tokens.key'}",
        f"--cluster-signing-cert-file={PKI / 'ca.crt'}", f"--cluster-signing-key-file={own / 'ca.key'}",
        # With the default rates the first service accounts come five seconds later.
        "--kube-api-qps=300", "--kube-api-burst=600", "--pvclaimbinder-sync-period=1s",
        "--use-service-account-credentials", "--leader-elect=false", "--bind-address=127.0.0.1",
        "--profiling=false",
    ]  # fmt: skip


def _workers(cluster: Cluster) -> list[Component]:
    return [
        Component(
            "containerd",
            (str(BIN / "containerd"), f"--config={CONFIG / 'containerd.toml'}"),
            needs=("registry",),
            ready="unix:///run/containerd/containerd.sock",
            account=ROOT,
            capabilities=None,
        ),
        Component(
            "kubelet",
            (
                str(BIN / "kubelet"), f"--config={CONFIG / 'kubelet.yaml'}",
                f"--kubeconfig={kubeconfig('kubelet')}", f"--root-dir={NODE_HOME / 'kubelet'}",
                f"--cert-dir={NODE_HOME / 'kubelet' / 'pki'}", f"--hostname-override={NODE}",
                f"--node-ip={cluster.addresses.node}",
            ),
            needs=("containerd", "kube-apiserver"),
            ready="http://127.0.0.1:10248/healthz",
            account=ROOT,
            capabilities=None,
        ),
        Component(
            "kube-proxy",
            (str(BIN / "kube-proxy"), f"--config={CONFIG / 'kube-proxy.yaml'}"),
            needs=("kube-apiserver",),
            ready="http://127.0.0.1:10256/livez",
            account=ROOT,
            capabilities=("net_admin", "net_raw"),
        ),
    ]  # fmt: skip


def _clients(name: str) -> list[str]:
    """A component's credentials, for each of the three things that it asks the API server."""
    path = kubeconfig(name)
    return [f"--kubeconfig={path}", f"--authentication-kubeconfig={path}", f"--authorization-kubeconfig={path}"]
