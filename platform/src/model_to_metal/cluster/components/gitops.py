"""Argo CD, without its own API server and pages: the controllers that keep the cluster equal to a commit."""

from __future__ import annotations

from model_to_metal.cluster.components.interface import ACCOUNTS, BIN, PKI, Cluster, apply, definitions, kubeconfig
from model_to_metal.cluster.layout import NODE_HOME
from model_to_metal.cluster.node.component import Component

NAMESPACE = "argocd"
HOME = NODE_HOME / "argocd"
FOLDERS = ("tls", "ssh", "gpg/source", "gpg/keys", "plugins", "tmp")
"""What the repository server expects to exist below its home."""

_REPOSITORY, _REDIS = "127.0.0.1:8081", "127.0.0.1:6379"


def components(cluster: Cluster) -> list[Component]:
    """Definitions, rights, cache, repository server, the two controllers."""
    shared = {"ARGOCD_FAKE_IN_CLUSTER": "true", "REDIS_PASSWORD": cluster.redis_password}
    repository = {**shared, **_repository_environment()}
    return [
        *definitions("argocd-crds", "argo-cd-crds", needs=("kube-apiserver",)),
        apply("argocd", needs=("kube-apiserver",)),
        Component(
            "redis",
            ("redis-server", str(PKI / "redis" / "redis.conf")),
            ready=f"tcp://{_REDIS}",
            account=ACCOUNTS["redis"],
        ),
        _component(
            "argocd-repo-server",
            # Without a limit on how long a revision is remembered, a new commit is seen after three minutes.
            [
                "--address=127.0.0.1", "--port=8081", "--metrics-address=127.0.0.1", "--metrics-port=8084",
                f"--redis={_REDIS}", "--disable-tls", "--client-ca-path=", "--revision-cache-expiration=3s",
            ],
            needs=("redis", "argocd", "git"),
            ready=f"tcp://{_REPOSITORY}",
            environment=repository,
        ),
        _component(
            "argocd-application-controller",
            [
                "--metrics-port=8082", f"--redis={_REDIS}", f"--repo-server={_REPOSITORY}", "--repo-server-plaintext",
                "--app-resync=5", "--app-resync-jitter=0", "--status-processors=4", "--operation-processors=2",
                "--kubectl-parallelism-limit=2",
            ],
            needs=("argocd-repo-server", "argocd-crds-served"),
            ready="http://127.0.0.1:8082/healthz",
            environment=shared,
        ),
        _component(
            "argocd-applicationset-controller",
            [
                "--metrics-addr=127.0.0.1:8085", "--probe-addr=127.0.0.1:8086", "--webhook-addr=127.0.0.1:7000",
                f"--argocd-repo-server={_REPOSITORY}", "--repo-server-plaintext",
            ],
            needs=("argocd-repo-server", "argocd-crds-served"),
            ready="tcp://127.0.0.1:8085",
            environment=shared,
        ),
    ]  # fmt: skip


def _component(
    name: str, options: list[str], *, needs: tuple[str, ...], ready: str, environment: dict[str, str]
) -> Component:
    return Component(
        name,
        (str(BIN / name), *options, "--loglevel=info"),
        needs=needs,
        ready=ready,
        account=ACCOUNTS[name],
        environment={**environment, "KUBECONFIG": str(kubeconfig(name))},
    )


def _repository_environment() -> dict[str, str]:
    return {
        "ARGOCD_TLS_DATA_PATH": str(HOME / "tls"),
        "ARGOCD_SSH_DATA_PATH": str(HOME / "ssh"),
        "ARGOCD_GNUPGHOME": str(HOME / "gpg" / "keys"),
        "ARGOCD_GPG_DATA_PATH": str(HOME / "gpg" / "source"),
        "ARGOCD_PLUGINSOCKFILEPATH": str(HOME / "plugins"),
        "ARGOCD_GPG_ENABLED": "true",
        "HOME": str(HOME),
        "TMPDIR": str(HOME / "tmp"),
    }
