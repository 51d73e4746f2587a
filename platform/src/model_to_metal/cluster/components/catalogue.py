"""The parts of a cluster. A new part is a file here and one line below."""

from __future__ import annotations

from model_to_metal.cluster.components import addons, admission, gitops, kubernetes, workflows
from model_to_metal.cluster.components.interface import Cluster
from model_to_metal.cluster.node.component import Component, ordered

PARTS = (kubernetes, addons, workflows, gitops, admission)


def components(cluster: Cluster) -> list[Component]:
    """Everything that runs on the node, each after what it needs."""
    return ordered(component for part in PARTS for component in part.components(cluster))
