"""`helix run release MODEL --on cluster`: prepare here, run on Argo Workflows, show it node by node."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer

from helix_lineage.paths import State
from model_to_metal.cluster import facts, images, status
from model_to_metal.cluster.errors import ClusterError, NotRunning
from model_to_metal.cluster.layout import BuildFolder, Layout
from model_to_metal.local.workspace import Workspace
from model_to_metal.pipeline.argo import cluster_keys, submit
from model_to_metal.pipeline.argo.exchange import Exchange
from model_to_metal.pipeline.argo.kubernetes import Kubernetes
from model_to_metal.pipeline.argo.prepare import Preparation
from model_to_metal.pipeline.engine import needed
from model_to_metal.registry.client import Client
from model_to_metal.supply_chain import keys
from model_to_metal.workflows.release import STEPS

_PATIENCE_S = 5.0
_NAME_IT = "export HELIX_REGISTRY=HOST:PORT"


def run(model: str, cluster: str, *, as_json: bool, verbose: bool) -> None:
    """Run the release workflow on a cluster and print the result. Raises GateRefused, WorkflowFailed and others."""
    local = Workspace.find()
    layout = BuildFolder.of(local.state).cluster(cluster)
    api, registry, name = reach(local.state, layout)

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    def detail(line: str) -> None:
        if verbose or line.startswith(("packing", "sending", "building")):
            say(line)

    wanted = {step.stage for step in STEPS}
    commit = local.engine().admit(model, wanted)
    builder = cluster_keys.builder(api, local.state)
    if builder is None:
        builder = keys.signer(local.state).builder
        cluster_keys.lend(api, local.state)
    with Client(registry) as client:
        exchange = Exchange(client, patience_s=_PATIENCE_S)
        preparation = Preparation(local.checkout, local.state, model, detail)
        prepared = preparation.run(exchange, needed(wanted), commit, builder)
        template = submit.install(api)
        image = f"{name}/{prepared.image.repository}@{prepared.image.digest}"
        workflow = submit.submit(api, template, prepared, registry, image)
        say(f"workflow {workflow} of {template}")
        ended = submit.follow(api, model, workflow, lambda node: say(node.line()))
        records = submit.finish(exchange, local.state, ended)
    release = records["attest"]
    if as_json:
        rows = [node.to_json() for node in ended.nodes.values()]
        value = {"model": model, "passed": True, "workflow": workflow, "stages": rows, "record": release.to_json()}
        typer.echo(json.dumps(value))
        return
    say(f"released by the builder {release.parameters['builder']}: {release.parameters['image']}")


def reach(state: State, layout: Layout) -> tuple[Kubernetes, str, str]:
    """The cluster's API, its registry as `HOST:PORT`, and the name that images in it have."""
    known = facts.read(layout)
    if known.external:
        registry = os.environ.get("HELIX_REGISTRY")
        if not registry:
            raise ClusterError(
                "name the cluster's registry", where="HELIX_REGISTRY", fix="export HELIX_REGISTRY=HOST:PORT"
            )
        return Kubernetes(Path("kubectl"), status.kubeconfig(layout)), registry, registry
    if not known.runs():
        raise NotRunning(f"the cluster {layout.name!r} does not run", where=str(layout.root), fix="helix cluster up")
    kubectl = BuildFolder.of(state).programs / "bin" / "kubectl"
    return Kubernetes(kubectl, status.kubeconfig(layout)), known.addresses.registry, images.NAME
