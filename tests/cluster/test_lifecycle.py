"""Starting and stopping: nothing is left, whatever was killed; two clusters do not meet; what is missing is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_to_metal.cluster import facts
from tests.cluster import machine, support
from tests.cluster.machine import Machine
from tests.waiting import until

pytestmark = pytest.mark.cluster
NAME = "own"
MARKS = ("/run/helix/tmp", "model_to_metal.cluster.node")
"""Every process of a node has one of them in its command line or environment."""


@pytest.fixture
def before(cluster: support.Running) -> Iterator[Machine]:
    """The machine, with the shared cluster on it, before the test's own starts."""
    support.helix("down", "--name", NAME)
    yield machine.look(MARKS)
    support.helix("down", "--name", NAME)


def test_down_leaves_nothing(before: Machine) -> None:
    running = support.up(NAME)
    running.apply(running.pod("web", "serve", ":8080"))
    during = machine.look(MARKS).added(before)
    # The comparison is able to see a cluster: it has all of these, and no mount, rule or setting of the machine.
    assert {"processes", "links", "routes", "groups"} == set(during)
    assert support.helix("down", "--name", NAME).returncode == 0
    assert machine.look(MARKS).left_by(before) == {}
    assert not support.layout(NAME).root.exists()


def test_a_second_up_does_nothing_and_a_second_down_too(before: Machine) -> None:
    first = support.up(NAME)
    again = support.up(NAME)
    assert {row["name"]: row["starts"] for row in again.said["components"]} == {
        row["name"]: row["starts"] for row in first.said["components"]
    }
    assert support.helix("down", "--name", NAME).stdout.strip() == f"stopped: {NAME}"
    assert support.helix("down", "--name", NAME).stdout.strip() == "there was no cluster to stop"


@pytest.mark.parametrize("reached", ["cluster.json", "components.json", "progress.json"])
def test_down_after_the_starter_was_killed(before: Machine, reached: str) -> None:
    """At each step of a start: addresses claimed, folder filled, node running."""
    command = [str(support.HELIX), "cluster", "up", "--name", NAME]
    starter = subprocess.Popen(command, cwd=support.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file = support.layout(NAME).root / reached
    until(lambda: file.exists() or starter.poll() is not None, f"{reached} is there")
    starter.send_signal(signal.SIGKILL)
    assert starter.wait() == -signal.SIGKILL
    assert support.helix("down", "--name", NAME).returncode == 0
    assert machine.look(MARKS).left_by(before) == {}


def test_down_after_the_node_was_killed(before: Machine) -> None:
    support.up(NAME)
    os.kill(facts.read(support.layout(NAME)).node_pid, signal.SIGKILL)
    until(lambda: support.helix("status", "--name", NAME).returncode == 1, "status says that it does not run")
    assert support.helix("down", "--name", NAME).returncode == 0
    assert machine.look(MARKS).left_by(before) == {}


def test_a_component_that_is_killed_is_started_again(before: Machine) -> None:
    running = support.up(NAME)
    running.kill("kube-scheduler")
    assert json.loads(running.layout.progress.read_text())["kube-scheduler"]["starts"] == 2


def test_two_clusters_side_by_side(cluster: support.Running, before: Machine) -> None:
    other = support.up(NAME)
    assert {other.said["server"], other.said["pods"]}.isdisjoint({cluster.said["server"], cluster.said["pods"]})
    other.apply(other.pod("web", "serve", ":8080"), support.service("web", target=8080), other.pod("client"))
    for running in (cluster, other):
        assert running.probe("client", "get", "http://web.default.svc.cluster.local/").stdout == "web\n"
    address = other.kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}").stdout
    assert cluster.probe("client", "dial", f"{address}:8080").returncode != 0
    assert support.helix("down", "--name", NAME).returncode == 0
    assert cluster.probe("client", "get", "http://web.default.svc.cluster.local/").stdout == "web\n"


def test_a_kubeconfig_of_a_cluster_that_exists(cluster: support.Running, before: Machine) -> None:
    kubeconfig = str(cluster.layout.kubeconfig)
    path = f"{support.BuildFolder.of(support.State.find(support.ROOT)).programs / 'bin'}:{os.environ['PATH']}"
    done = support.helix("up", "--name", NAME, "--kubeconfig", kubeconfig, PATH=path)
    assert done.returncode == 0, done.stderr
    assert support.helix("status", "--name", NAME, PATH=path).returncode == 0
    assert support.helix("kubeconfig", "--name", NAME).stdout.strip() == kubeconfig
    assert support.helix("down", "--name", NAME).returncode == 0
    assert cluster.probe("client", "lookup", "web.default.svc.cluster.local").returncode == 0


def test_without_root_one_sentence_says_so(tmp_path: Path) -> None:
    # The checkout may lie where another user cannot look; what is asked is asked of the state.
    done = support.helix("up", "--name", NAME, user=65534, HELIX_STATE=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("helix: a cluster needs root")
    assert "--kubeconfig" in done.stderr


def test_without_control_groups_one_sentence_says_so(tmp_path: Path) -> None:
    covered = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
    command = ["unshare", "--mount", "bash", "-c", covered, "bash", str(support.HELIX), "cluster", "up", "--name", NAME]
    settings = {**os.environ, "HELIX_STATE": str(tmp_path)}
    done = subprocess.run(command, cwd=support.ROOT, env=settings, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "control groups of cpu, cpuset, memory, pids" in done.stderr.splitlines()[0]


def test_without_go_one_sentence_says_so(tmp_path: Path) -> None:
    """No Go on the path, and none to be had: the package index that pip would ask is not there."""
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    done = support.helix("up", "--name", NAME, PATH=path, HELIX_STATE=str(tmp_path), **nowhere)
    assert done.returncode == 2
    assert "there is no Go to build them with" in done.stderr.splitlines()[0]


def test_there_is_no_such_cluster() -> None:
    done = support.helix("status", "--name", "nobody", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["answer"] == "could not tell"
