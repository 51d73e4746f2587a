"""What a bare node lacks: who holds NetworkPolicies, and who makes volumes."""

from __future__ import annotations

from model_to_metal.cluster.components.interface import BIN, Cluster, apply, kubeconfig
from model_to_metal.cluster.layout import NODE_HOME
from model_to_metal.cluster.node.component import ROOT, Component


def components(_cluster: Cluster) -> list[Component]:
    """Their rights, then the two."""
    volumes = NODE_HOME / "volumes"
    return [
        apply("addons", needs=("kube-apiserver",)),
        Component(
            "network-policies",
            (str(BIN / "network-policies"), f"--kubeconfig={kubeconfig('network-policies')}"),
            needs=("addons",),
            account=ROOT,
            capabilities=("net_admin",),
        ),
        Component(
            "volume-provisioner",
            (str(BIN / "volume-provisioner"), f"--kubeconfig={kubeconfig('volume-provisioner')}", f"--root={volumes}"),
            needs=("addons",),
            account=ROOT,
            # Pods write as whoever they are: removing a volume means removing what others own.
            capabilities=("dac_override", "fowner"),
        ),
    ]
