"""`helix cluster`: a real Kubernetes on this machine, in namespaces of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.formats.named import read_named
from helix_lineage.paths import State
from model_to_metal.cli import _on_cluster
from model_to_metal.cli._options import AsJson
from model_to_metal.cluster import build, facts, forward, lifecycle, prerequisites, status
from model_to_metal.cluster.errors import ClusterError, NotRunning
from model_to_metal.cluster.layout import DEFAULT_NAME, BuildFolder, Layout
from model_to_metal.cluster.network import API_PORT, GIT_PORT, REGISTRY_PORT
from model_to_metal.errors import KeysError
from model_to_metal.pipeline.argo import cluster_keys
from model_to_metal.supply_chain import keys as signing

Name = Annotated[str, typer.Option("--name", help="Which cluster of this checkout.")]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def register(app: typer.Typer) -> None:
    """Mount `helix cluster up`, `status`, `logs`, `kubeconfig`, `ui`, `keys`, `build` and `down`."""
    group = typer.Typer(
        help="A real Kubernetes on this machine (root, Linux), in namespaces of its own.", no_args_is_help=True
    )
    for command in (up, show, logs, kubeconfig, ui, keys, make, down):
        group.command({show: "status", make: "build"}.get(command, command.__name__))(command)
    app.add_typer(group, name="cluster")


def up(
    name: Name = DEFAULT_NAME,
    existing: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Use a cluster that exists, and start none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the cluster, or do nothing when it runs; the first time its programs are built, which takes a while.

    Nothing is installed on the machine, and no image is pulled. Exit status: 0 every component is ready, 2 it could
    not be started.

    Examples:

        helix cluster up

        helix cluster up --name second --json

        helix cluster up --kubeconfig ~/.kube/config
    """
    state, layout = State.find(), _layout(name)
    if existing is not None:
        read_named(existing, "the kubeconfig")  # kubectl would wait for a pipe, and read a device without end
        _print(status.adopt(layout, existing), as_json)
        return
    prerequisites.check(state)
    programs = build.ensure(state, lambda line: typer.echo(line, err=True))
    began = time.monotonic()

    def report(component: str, seconds: float) -> None:
        typer.echo(f"  {component:26} {seconds:6.1f} s", err=True)

    lifecycle.up(layout, programs, report)
    typer.echo(f"ready in {time.monotonic() - began:.1f} s", err=True)
    _print(status.of(layout), as_json)


def show(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """How each component is. Exit status: 0 all are ready, 1 one is not, 2 there is no such cluster.

    Examples:

        helix cluster status

        helix cluster status --json
    """
    found = status.of(_layout(name))
    _print(found, as_json)
    if not found.is_ready:
        raise typer.Exit(1)


def logs(
    component: Annotated[str, typer.Argument(help="For instance kubelet; node is the first process of the node.")],
    name: Name = DEFAULT_NAME,
    tail: Annotated[int, typer.Option(help="Only so many lines, the newest; 0 means all.")] = 100,
) -> None:
    """Print what a component wrote.

    Examples:

        helix cluster logs kubelet

        helix cluster logs kube-apiserver --tail 0
    """
    path = status.log(_layout(name), component)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for line in lines[-tail:] if tail else lines:
        typer.echo(line)


def kubeconfig(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Print the path of the administrator's kubeconfig.

    Examples:

        helix cluster kubeconfig

        helix cluster kubeconfig --name second --json
    """
    path = status.kubeconfig(_layout(name))
    typer.echo(json.dumps({"kubeconfig": str(path)}) if as_json else str(path))


def ui(name: Name = DEFAULT_NAME, as_json: AsJson = False) -> None:
    """Forward ports of 127.0.0.1 to the cluster's servers until Ctrl-C, and say what each is.

    On this machine the cluster's own addresses work as well (`helix cluster status`); the forwarded ones also work
    through an SSH tunnel. This build of the servers has interfaces for programs, and no pages.

    Examples:

        helix cluster ui

        helix cluster ui --name second --json
    """
    known = facts.read(_layout(name))
    if known.external or not known.runs():
        raise NotRunning(f"no cluster {name!r} of our own runs", where=str(_layout(name).root), fix="helix cluster up")
    node = known.addresses.node
    targets = {"kubernetes": (node, API_PORT), "registry": (node, REGISTRY_PORT), "git": (node, GIT_PORT)}

    def report(server: str, port: int) -> None:
        url = f"{'https' if server == 'kubernetes' else 'http'}://{forward.HOST}:{port}"
        typer.echo(json.dumps({"server": server, "url": url}) if as_json else f"{server:12} {url}")

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(forward.serve(targets, report))


def keys(
    builder: Annotated[
        str, typer.Option(metavar="|".join(signing.BUILDERS), help="Whom the cluster releases as.")
    ] = "cluster",
    replace: Annotated[bool, typer.Option("--replace", help="Also where the cluster has keys of its own.")] = False,
    name: Name = DEFAULT_NAME,
    as_json: AsJson = False,
) -> None:
    """Give the cluster's pipeline keys of its own; their private halves exist there alone.

    What it releases from then on is its own, and not this laptop's: production environments take it. This
    checkout's trust root names the new keys.

    Examples:

        helix cluster keys

        helix cluster keys --builder cluster --json
    """
    if builder not in signing.BUILDERS:
        raise KeysError(f"no builder is called {builder!r}; there are: {', '.join(signing.BUILDERS)}")
    state = State.find()
    api, _, _ = _on_cluster.reach(state, _layout(name))
    if not replace and (known := cluster_keys.builder(api, state)):
        raise KeysError(f"the cluster has keys of its own, and releases as {known}", fix="helix cluster keys --replace")
    key_id = cluster_keys.make(api, state, builder)
    said = {"builder": builder, "key_id": key_id, "trust": str(state.trust)}
    typer.echo(json.dumps(said) if as_json else f"the cluster releases as {builder}, with the key {key_id}")


def make(
    keep_caches: Annotated[
        bool, typer.Option("--keep-caches", help="Keep Go's caches (up to 16 GB): the next build is short.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build the cluster's programs from their Go modules, without starting anything.

    Examples:

        helix cluster build

        helix cluster build --keep-caches
    """
    programs = build.ensure(State.find(), lambda line: typer.echo(line, err=True), keep_caches=keep_caches)
    typer.echo(json.dumps({"programs": str(programs)}) if as_json else str(programs))


def down(
    name: Name = DEFAULT_NAME,
    every: Annotated[bool, typer.Option("--all", help="Every cluster of this checkout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the cluster and remove everything of it: processes, mounts, links, routes, control groups, files.

    Works after whatever came before, a start that was killed included. Exit status: 0 nothing of it is left.

    Examples:

        helix cluster down

        helix cluster down --all
    """
    layouts = BuildFolder.of(State.find()).clusters() if every else [_layout(name)]
    stopped: list[str] = []
    for layout in layouts:
        if lifecycle.down(layout):
            stopped.append(layout.name)
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}))
        return
    typer.echo(f"stopped: {', '.join(stopped)}" if stopped else "there was no cluster to stop")


def _layout(name: str) -> Layout:
    if not _NAME.fullmatch(name):
        raise ClusterError("a cluster's name is lower-case letters, digits and hyphens, at most 31", where=name)
    return BuildFolder.of(State.find()).cluster(name)


def _print(found: status.Status, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    for row in found.components:
        after = "" if row.ready_after_s is None else f"after {row.ready_after_s:.1f} s"
        again = f", started {row.starts} times" if row.starts > 1 else ""
        typer.echo(f"{row.name:26} {row.state:9} {after}{again}")
    if not found.running:
        typer.echo(f"the cluster {found.name} does not run; start it again with: helix cluster up")
        return
    if found.facts.slot is not None:
        at = found.facts.addresses
        typer.echo(f"API server {at.server}, registry {at.registry}, Git {at.git}/gitops.git")
        typer.echo(f"memory     {found.memory_bytes / 1e9:.2f} GB")
    typer.echo(f"kubeconfig {status.kubeconfig(_layout(found.name))}")
