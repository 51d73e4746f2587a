"""Where a cluster's files lie: under `.helix/cluster` on the host, under fixed paths inside the node.

The node sees its own folder at `/run/helix` and the programs at `/run/helix-programs`, whatever
the checkout's path is: no component's configuration holds a path of the machine, and a socket's
path stays below the kernel's 108 characters. This is the one module that knows these paths.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.paths import State

SOURCES = Path(__file__).resolve().parents[3] / "cluster"
"""`platform/cluster` of this checkout: Go modules, component configuration, manifests."""

NODE_HOME = Path("/run/helix")
"""The cluster's folder, as the node sees it."""
NODE_PROGRAMS = Path("/run/helix-programs")
"""The built programs, as the node sees them."""
DEFAULT_NAME = "helix"

_FOLDERS = ("config", "log", "pki", "containerd", "kubelet", "cni", "pod-logs", "tmp", "volumes")


@dataclass(frozen=True, slots=True)
class BuildFolder:
    """What all clusters of a checkout share: built programs, and the caches while they are built."""

    root: Path

    @classmethod
    def of(cls, state: State) -> BuildFolder:
        """The folder of this checkout."""
        return cls(state.root / "cluster")

    @property
    def programs(self) -> Path:
        """One folder a Go module, named by what it was built from."""
        return self.root / "programs"

    @property
    def go(self) -> Path:
        """Go's caches of modules and objects; gone once everything is built."""
        return self.root / "go"

    def cluster(self, name: str) -> Layout:
        """The folder of one cluster."""
        return Layout(self.root / "clusters" / name)

    def clusters(self) -> list[Layout]:
        """Every cluster that has a folder."""
        return [Layout(path) for path in sorted((self.root / "clusters").glob("*")) if path.is_dir()]


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one cluster, as the host sees it."""

    root: Path

    @property
    def name(self) -> str:
        """The cluster's name, unique in its checkout."""
        return self.root.name

    @property
    def identity(self) -> str:
        """Eight characters that no other cluster of this machine has: they stand in its cgroups and link address."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def facts(self) -> Path:
        """`cluster.json`: addresses, and the process that holds the namespaces."""
        return self.root / "cluster.json"

    @property
    def components(self) -> Path:
        """`components.json`: what the node's first process starts."""
        return self.root / "components.json"

    @property
    def progress(self) -> Path:
        """`progress.json`: how each component is, written by the node's first process."""
        return self.root / "progress.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, mode 0600."""
        return self.root / "kubeconfig"

    @property
    def git_token(self) -> Path:
        """What a push to the cluster's Git server needs, mode 0600."""
        return self.root / "git-token"

    @property
    def failed(self) -> Path:
        """Logs of the last start that failed."""
        return self.root.parent.parent / "failed" / self.root.name

    @property
    def lock(self) -> Path:
        """Held while the cluster is started or stopped. Beside the folder, because `down` removes that."""
        return self.root.with_suffix(".lock")

    def log(self, component: str) -> Path:
        """Everything that a component wrote."""
        return self.root / "log" / f"{component}.log"

    def folder(self, name: str) -> Path:
        """A folder of the cluster, made if need be."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def make(self) -> None:
        """Make the folders that every node has."""
        self.root.mkdir(parents=True, exist_ok=True)
        # Components run under accounts of their own and pass through here; the secrets below have modes of their own.
        self.root.chmod(0o711)
        for name in _FOLDERS:
            self.folder(name)
