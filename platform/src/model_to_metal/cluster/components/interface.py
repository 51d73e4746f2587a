"""What every part of a cluster is written with: accounts, credentials, paths, and the values of one cluster.

A part (`kubernetes`, `addons`, `workflows`, …) is a file here that gives `components(cluster)`;
`catalogue` lists the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_to_metal.cluster import cgroups
from model_to_metal.cluster.layout import NODE_HOME, NODE_PROGRAMS
from model_to_metal.cluster.network import API_PORT, GIT_PORT, REGISTRY_PORT, Addresses
from model_to_metal.cluster.node.component import Component

NODE = "node"
"""The node's name."""
CONFIG, PKI, BIN = NODE_HOME / "config", NODE_HOME / "pki", NODE_PROGRAMS / "bin"

_OWN_ACCOUNT = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "registry", "git", "admin",
    "workflow-controller", "redis", "argocd-repo-server", "argocd-application-controller",
    "argocd-applicationset-controller", "kyverno",
)  # fmt: skip
ACCOUNTS: Mapping[str, int] = {name: 61_000 + at for at, name in enumerate(_OWN_ACCOUNT)}
"""Account numbers of components; nothing else on a usual machine has numbers in this range."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom the API server takes a component for."""

    name: str
    group: str | None = None
    namespace: str = "default"
    """Where the component looks when it names no namespace."""


USERS: Mapping[str, User] = {
    "admin": User("helix:admin", "system:masters"),
    "kube-controller-manager": User("system:kube-controller-manager"),
    "kube-scheduler": User("system:kube-scheduler"),
    "kubelet": User(f"system:node:{NODE}", "system:nodes"),
    "kube-proxy": User("system:kube-proxy"),
    "network-policies": User("helix:network-policies"),
    "volume-provisioner": User("helix:volume-provisioner"),
    "workflow-controller": User("helix:workflow-controller", namespace="argo"),
    "argocd-repo-server": User("helix:argocd-repo-server", namespace="argocd"),
    "argocd-application-controller": User("helix:argocd-application-controller", namespace="argocd"),
    "argocd-applicationset-controller": User("helix:argocd-applicationset-controller", namespace="argocd"),
    "kyverno": User("helix:kyverno", namespace="kyverno"),
}
"""Component → its user; each has a kubeconfig of its own, which no other account reads."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the components of one cluster are written from."""

    identity: str
    addresses: Addresses
    images: Mapping[str, str]
    """Name → `HOST:PORT/REPOSITORY@DIGEST` of the images that Helix composed."""
    redis_password: str

    def values(self) -> dict[str, str]:
        """What stands as `${name}` in component configuration and manifests."""
        at = self.addresses
        return {
            "node": at.node,
            "host": at.host,
            "pods": at.pods,
            "services": at.services,
            "api": at.api_service,
            "dns": at.dns_service,
            "registry": at.registry,
            "cgroup": cgroups.name(self.identity),
            "api_port": str(API_PORT),
            "registry_port": str(REGISTRY_PORT),
            "git_port": str(GIT_PORT),
            **self.images,
        }


def kubeconfig(name: str) -> Path:
    """A component's credentials, as the node sees them."""
    return PKI / name / "kubeconfig"


def apply(name: str, *, needs: tuple[str, ...], manifests: tuple[Path, ...] = ()) -> Component:
    """A component that applies folders of manifests, by default `config/manifests/<name>.yaml`."""
    files = [str(CONFIG / "manifests" / f"{name}.yaml")]
    if manifests:
        # `bin` holds links, and kubectl does not follow one unless it is asked for what is inside.
        files = [f"{path}/" for path in manifests]
    argv = [*_kubectl(name), "apply", "--server-side", "--force-conflicts", "--validate=false", "--field-manager=helix"]
    argv += ["--recursive", *(f"--filename={path}" for path in files)]
    return Component(name, tuple(argv), needs, once=True, account=ACCOUNTS["admin"])


def definitions(name: str, folder: str, *, needs: tuple[str, ...]) -> list[Component]:
    """Components that apply a folder of CustomResourceDefinitions and wait until the API server serves their kinds.

    The second is called `<name>-served`. A controller that starts before that ends, or misses what is there.
    """
    served = [*_kubectl(f"{name}-served"), "wait", "--for=condition=Established", "customresourcedefinition", "--all"]
    return [
        apply(name, needs=needs, manifests=(BIN / folder,)),
        Component(f"{name}-served", (*served, "--timeout=60s"), (name,), once=True, account=ACCOUNTS["admin"]),
    ]


def wait(name: str, namespace: str, what: str, condition: str, *, needs: tuple[str, ...]) -> Component:
    """A component that is done when an object of the cluster has a condition."""
    argv = [*_kubectl(name), f"--namespace={namespace}", "wait", f"--for=condition={condition}", what, "--timeout=60s"]
    return Component(name, tuple(argv), needs, once=True, account=ACCOUNTS["admin"])


def _kubectl(name: str) -> list[str]:
    return [str(BIN / "kubectl"), f"--kubeconfig={kubeconfig('admin')}", f"--cache-dir={NODE_HOME / 'tmp' / name}"]
