"""Clusters that tests start, through the command line that a user has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_lineage.paths import State
from model_to_metal.cluster import facts, images
from model_to_metal.cluster.layout import BuildFolder, Layout
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
HELIX = Path(sys.executable).with_name("helix")
LONGEST_S = 300.0
"""Only how long it takes until a start that hangs says so."""


def helix(*arguments: str, user: int | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `helix cluster …` to its end."""
    command = [str(HELIX), "cluster", *arguments]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings}, check=False, capture_output=True, text=True,
        timeout=LONGEST_S,
    )  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A cluster that runs."""

    name: str
    said: dict[str, Any]
    """What `helix cluster up --json` printed."""

    @property
    def layout(self) -> Layout:
        return layout(self.name)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        program = BuildFolder.of(State.find(ROOT)).programs / "bin" / "kubectl"
        command = [str(program), f"--kubeconfig={self.layout.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=LONGEST_S)
        assert not check or done.returncode == 0, done.stderr
        return done

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects, and wait until the pods among them are ready."""
        value = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(value))
        for pod in (item for item in objects if item["kind"] == "Pod" and item["spec"]["restartPolicy"] == "Always"):
            where = f"--namespace={pod['metadata'].get('namespace', 'default')}"
            self.kubectl(where, "wait", "--for=condition=Ready", f"pod/{pod['metadata']['name']}", "--timeout=120s")

    def probe(self, pod: str, *arguments: str, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        """Run the probe inside a pod."""
        return self.kubectl(f"--namespace={namespace}", "exec", pod, "--", "/bin/probe", *arguments, check=False)

    @contextmanager
    def stopped(self, component: str) -> Iterator[None]:
        """Hold a component of the node still, as if it were gone: it answers nobody."""
        pid = json.loads(self.layout.progress.read_text())[component]["pid"]
        node = facts.read(self.layout).node_pid
        signal = ["nsenter", f"--target={node}", "--pid", "--mount", "kill"]
        subprocess.run([*signal, "-STOP", str(pid)], check=True)
        try:
            yield
        finally:
            subprocess.run([*signal, "-CONT", str(pid)], check=True)

    def kill(self, component: str) -> None:
        """Kill a component of the node, and wait until it runs again."""
        before = json.loads(self.layout.progress.read_text())[component]
        node = facts.read(self.layout).node_pid
        signal = ["nsenter", f"--target={node}", "--pid", "--mount", "kill", "-KILL"]
        # The node numbers its processes itself.
        subprocess.run([*signal, str(before["pid"])], check=True)

        def again() -> bool:
            row = json.loads(self.layout.progress.read_text())[component]
            return bool(row["state"] == "ready" and row["pid"] != before["pid"] and row["starts"] > before["starts"])

        until(again, f"{component} runs again")

    def image(self, name: str) -> str:
        """One of the images that Helix composed, by digest."""
        index = json.loads((self.layout.root / "registry/helix/system" / name / "index.json").read_bytes())
        return f"{images.NAME}/helix/system/{name}@{index['manifests'][0]['digest']}"

    def pod(self, name: str, *arguments: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
        """A pod of one probe; `pause` by default."""
        container = {"name": "probe", "image": self.image("probe"), "args": list(arguments or ("pause",))}
        container |= spec.pop("container", {})
        meta = {"name": name, "namespace": namespace, "labels": {"app": name}}
        body = {"containers": [container], "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def layout(name: str) -> Layout:
    return BuildFolder.of(State.find(ROOT)).cluster(name)


def up(name: str) -> Running:
    done = helix("up", "--name", name, "--json")
    assert done.returncode == 0, done.stderr
    return Running(name, json.loads(done.stdout))


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def service(name: str, *, target: int, port: int = 80, namespace: str = "default") -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
