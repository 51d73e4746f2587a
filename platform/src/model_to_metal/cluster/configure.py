"""Writes what a cluster's components read: credentials, configuration, images, repositories.

Takes the addresses; fills the cluster's folder and gives the list of components. Everything in
it belongs to this one start of the cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from string import Template

from model_to_metal.cluster import images, pki
from model_to_metal.cluster.components import catalogue, gitops
from model_to_metal.cluster.components.interface import ACCOUNTS, NODE, USERS, Cluster
from model_to_metal.cluster.layout import SOURCES, Layout
from model_to_metal.cluster.network import Addresses
from model_to_metal.cluster.node.component import Component, dump
from model_to_metal.host.process import run

REPOSITORIES = ("gitops",)
"""The Git server's repositories, empty until somebody pushes."""

_OWNERS = {"etcd": "etcd", "registry": "registry", "git": "git", "audit": "kube-apiserver"}
"""Folder → the component that writes there."""
_OVERLAY = "overlayfs"
_API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def configure(layout: Layout, programs: Path, addresses: Addresses) -> list[Component]:
    """Fill the cluster's folder; gives its components, each after those that it needs."""
    layout.make()
    found = images.install(programs / "images", layout.folder("registry"))
    cluster = Cluster(layout.identity, addresses, found, secrets.token_hex(32))
    _credentials(layout, cluster)
    _configuration(layout, cluster)
    _repositories(layout)
    for name in gitops.FOLDERS:
        layout.folder(f"argocd/{name}")
    (layout.root / "argocd" / "ssh" / "ssh_known_hosts").touch()
    for folder, owner in _OWNERS.items():
        _give(layout.folder(folder), ACCOUNTS[owner])
    _give(layout.root / "argocd", ACCOUNTS["argocd-repo-server"])
    (layout.root / "tmp").chmod(0o1777)
    components = catalogue.components(cluster)
    # Some components are given a password in their environment.
    pki.write(layout.components, dump(components).encode(), 0, mode=0o600)
    return components


def _credentials(layout: Layout, cluster: Cluster) -> None:
    at, authority, folder = cluster.addresses, pki.Authority("helix-cluster"), layout.root / "pki"
    pki.write(folder / "ca.crt", authority.pair.certificate_pem, 0, mode=0o444)
    pki.write(folder / "front.crt", pki.Authority("helix-front").pair.certificate_pem, 0, mode=0o444)
    for name, user in USERS.items():
        pair = authority.client(user.name, user.group)
        config = pki.kubeconfig(at.server, authority, user.name, pair, namespace=user.namespace)
        _secret(layout, name, "kubeconfig", config)
        if name == "admin":
            pki.write(layout.kubeconfig, config, 0, mode=0o600)
    _pair(
        layout, "kube-apiserver", "serving", authority.serving("kube-apiserver", (*_API_NAMES, at.node, at.api_service))
    )
    _pair(layout, "kube-apiserver", "kubelet", authority.client("kube-apiserver-kubelet-client", "system:masters"))
    kubelet = USERS["kubelet"]
    _pair(layout, "kubelet", "serving", authority.serving(kubelet.name, (NODE, at.node), group=kubelet.group))
    private, public = pki.token_keys()
    _secret(layout, "kube-apiserver", "tokens.key", private)
    _secret(layout, "kube-apiserver", "tokens.pub", public)
    _secret(layout, "kube-controller-manager", "tokens.key", private)
    _secret(layout, "kube-controller-manager", "ca.key", authority.pair.key_pem)
    token = secrets.token_hex(32).encode()
    _secret(layout, "git", "token", token)
    pki.write(layout.git_token, token, 0, mode=0o600)
    settings = f'bind 127.0.0.1\nport 6379\nsave ""\nappendonly no\nrequirepass {cluster.redis_password}\n'
    _secret(layout, "redis", "redis.conf", settings.encode())


def _pair(layout: Layout, component: str, name: str, pair: pki.Pair) -> None:
    _secret(layout, component, f"{name}.key", pair.key_pem)
    _secret(layout, component, f"{name}.crt", pair.certificate_pem)


def _secret(layout: Layout, component: str, name: str, data: bytes) -> None:
    """Write what one component alone may read."""
    account, folder = ACCOUNTS.get(component, 0), layout.root / "pki" / component
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, account, account)
    folder.chmod(0o500)
    pki.write(folder / name, data, account)


def _configuration(layout: Layout, cluster: Cluster) -> None:
    """Copy component configuration and manifests, with this cluster's values filled in."""
    values = {**cluster.values(), "snapshotter": _snapshotter(layout.root)}
    for source in sorted(path for path in (SOURCES / "config").rglob("*") if path.is_file()):
        _fill(source, layout.root / "config" / source.relative_to(SOURCES / "config"), values)
    for source in sorted((SOURCES / "manifests").glob("*.yaml")):
        _fill(source, layout.root / "config" / "manifests" / source.name, values)


def _fill(source: Path, target: Path, values: dict[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(Template(source.read_text()).substitute(values))


def _snapshotter(root: Path) -> str:
    """Overlay file systems do not stand on each other: there, layers are copied."""
    kind = run(["stat", "--file-system", "--format=%T", root]).decode().strip()
    return "native" if kind == _OVERLAY else "overlayfs"


def _repositories(layout: Layout) -> None:
    for name in REPOSITORIES:
        run(["git", "init", "--quiet", "--bare", "--initial-branch=main", layout.folder("git") / f"{name}.git"])


def _give(folder: Path, account: int) -> None:
    """Hand a folder and all in it to the account of the component that writes there."""
    folder.chmod(0o700)
    for path in (folder, *folder.rglob("*")):
        # A blob that other clusters share stays root's: read by all, written by nobody.
        if path.is_dir() or path.stat(follow_symlinks=False).st_nlink == 1:
            os.chown(path, account, account, follow_symlinks=False)


def forget(layout: Layout) -> None:
    """Remove everything that a cluster wrote. Its namespaces are gone, so nothing is mounted there."""
    shutil.rmtree(layout.root, ignore_errors=True)
