"""A node that a pod cannot tell from any other: images, names, services, volumes, network policies, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.cluster import support
from tests.cluster.support import Running
from tests.waiting import until

pytestmark = pytest.mark.cluster


def test_the_node_is_the_declared_kubernetes_and_ready(cluster: Running) -> None:
    (node,) = json.loads(cluster.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.4"
    assert any(row["type"] == "Ready" and row["status"] == "True" for row in node["status"]["conditions"])


def test_a_pod_of_an_image_by_digest_runs_without_root_or_capabilities(cluster: Running) -> None:
    done = cluster.probe("client", "read", "/proc/self/status")
    facts = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert facts["Uid"].split()[0] == "65532"
    assert int(facts["CapEff"], 16) == 0
    assert facts["Seccomp"] == "2"  # the runtime's default filter


def test_an_image_that_the_registry_lacks_is_pulled_from_nowhere(cluster: Running) -> None:
    pod = cluster.pod("absent", container={"image": f"docker.io/library/busybox@sha256:{'0' * 64}"})
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

    def reason() -> str:
        said = cluster.kubectl("get", "pod", "absent", "-o", "json").stdout
        (container,) = json.loads(said)["status"].get("containerStatuses") or [{}]
        return str(container.get("state", {}).get("waiting", {}).get("reason"))

    until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "the pull has failed")
    cluster.kubectl("delete", "pod", "absent", "--wait=false")


def test_names_resolve_and_a_service_answers(cluster: Running) -> None:
    assert cluster.probe("client", "get", "http://web.default.svc.cluster.local/").stdout == "web\n"
    address = cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}").stdout
    assert cluster.probe("client", "lookup", "web.default.svc.cluster.local").stdout.strip() == address
    assert cluster.probe("client", "lookup", "nobody.default.svc.cluster.local").returncode != 0


def test_the_host_reaches_services_and_the_registry(cluster: Running) -> None:
    address = cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}").stdout
    assert urllib.request.urlopen(f"http://{address}/", timeout=10).read() == b"web\n"
    assert urllib.request.urlopen(f"http://{cluster.said['registry']}/v2/", timeout=10).status == 200


def test_pods_reach_the_registry_by_the_name_it_has_in_every_cluster(cluster: Running) -> None:
    done = cluster.probe("client", "get", "http://registry.helix-system.svc.cluster.local:5000/v2/")
    assert done.returncode == 0, done.stderr


def test_pods_reach_neither_the_host_nor_the_nodes_own_ports(cluster: Running) -> None:
    node = cluster.said["registry"].partition(":")[0]
    host = node.rpartition(".")[0] + ".1"
    assert cluster.probe("client", "dial", f"{node}:5000").returncode == 0
    assert cluster.probe("client", "dial", f"{node}:10250").returncode != 0  # the kubelet
    assert cluster.probe("client", "dial", f"{host}:22").returncode != 0


def test_a_claim_becomes_a_folder_that_outlives_the_pod_and_goes_with_the_claim(cluster: Running) -> None:
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }  # fmt: skip
    volume = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    cluster.apply(claim, cluster.pod("writer", container=mount, **volume))
    assert cluster.probe("writer", "write", "/data/file").returncode == 0
    cluster.kubectl("delete", "pod", "writer")
    cluster.apply(cluster.pod("reader", container=mount, **volume))
    assert cluster.probe("reader", "read", "/data/file").stdout == "written\n"
    (folder,) = (cluster.layout.root / "volumes").iterdir()
    cluster.kubectl("delete", "pod/reader", "pvc/data")
    until(lambda: not folder.exists(), "the volume's folder is gone")


def test_a_network_policy_is_held(cluster: Running) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "fenced"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }  # fmt: skip
    allow = {
        **policy, "metadata": {"name": "allowed", "namespace": "fenced"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "inner"}}, "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                          "podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"port": "http", "protocol": "TCP"}],
            }],
        },
    }  # fmt: skip
    port = {"ports": [{"containerPort": 8080, "name": "http"}]}
    inner = cluster.pod("inner", "serve", ":8080", namespace="fenced", container=port)
    cluster.apply(support.namespace("fenced"), inner)
    address = cluster.kubectl("--namespace=fenced", "get", "pod", "inner", "-o", "jsonpath={.status.podIP}").stdout
    inner_port, web = f"{address}:8080", "http://web.default.svc.cluster.local/"
    assert cluster.probe("client", "dial", inner_port).returncode == 0
    assert cluster.probe("inner", "get", web, namespace="fenced").returncode == 0
    cluster.apply(policy)
    until(lambda: cluster.probe("client", "dial", inner_port).returncode != 0, "nobody gets in")
    until(lambda: cluster.probe("inner", "get", web, namespace="fenced").returncode != 0, "nothing gets out")
    with pytest.raises((urllib.error.URLError, TimeoutError)):
        urllib.request.urlopen(f"http://{inner_port}/", timeout=3)
    cluster.apply(allow)
    until(lambda: cluster.probe("client", "dial", inner_port).returncode == 0, "who is named gets in")
    assert cluster.probe("web", "dial", inner_port).returncode != 0
    cluster.kubectl("delete", "namespace", "fenced", "--wait=false")


def test_logs_of_a_component_and_of_a_pod(cluster: Running) -> None:
    assert "serving on :8080" in cluster.kubectl("logs", "web").stdout
    assert "kubelet" in support.helix("logs", "kubelet", "--name", "shared", "--tail", "0").stdout.lower()
    wrong = support.helix("logs", "kublet", "--name", "shared")
    assert wrong.returncode == 2
    assert "kubelet" in wrong.stderr


def test_a_push_to_the_git_server_needs_the_token(cluster: Running, tmp_path: object) -> None:
    url = f"{cluster.said['git']}/gitops.git"
    token = cluster.layout.git_token.read_text()
    work = str(tmp_path)
    git = ["git", "-C", work, "-c", "user.name=test", "-c", "user.email=test@helix.example"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", work], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=first"], check=True)
    settings = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/true"}

    def push(to: str) -> int:
        # A branch of its own: other tests push another history to the same repository.
        command = [*git, "push", "--quiet", to, "main:by-token"]
        return subprocess.run(command, env=settings, check=False, capture_output=True, timeout=60).returncode

    assert push(url) != 0
    assert push(url.replace("http://", f"http://test:{'0' * 64}@")) != 0
    assert push(url.replace("http://", f"http://test:{token}@")) == 0
    read = subprocess.run(["git", "ls-remote", url, "by-token"], check=True, capture_output=True, text=True).stdout
    assert read.endswith("refs/heads/by-token\n")


def test_each_components_account_reads_its_own_credentials_only(cluster: Running) -> None:
    folders = [path for path in (cluster.layout.root / "pki").iterdir() if path.is_dir()]
    assert len(folders) > 8
    for folder in folders:
        assert folder.stat().st_mode & 0o077 == 0
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
            assert file.stat().st_uid == folder.stat().st_uid


def test_status_says_yes_in_words_and_json(cluster: Running) -> None:
    said = support.helix("status", "--name", "shared", "--json")
    assert said.returncode == 0, said.stdout
    value = json.loads(said.stdout)
    assert value["ready"] is True
    assert {row["name"] for row in value["components"]} >= {"etcd", "kube-apiserver", "kubelet", "registry", "git"}
    assert 0 < value["memory_bytes"] < 4e9
    assert "kube-apiserver" in support.helix("status", "--name", "shared").stdout


def test_forwarded_ports_reach_the_clusters_servers(cluster: Running) -> None:
    command = [str(support.HELIX), "cluster", "ui", "--name", "shared", "--json"]
    with subprocess.Popen(command, cwd=support.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        rows = [json.loads(process.stdout.readline()) for _ in range(3)]
        urls = {row["server"]: row["url"] for row in rows}
        address = f"{urls['registry']}/v2/"
        assert urllib.request.urlopen(address, timeout=10).status == 200  # noqa: S310
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=10)  # noqa: S310
