"""Kyverno on the cluster: only an image that our key signed may run, and nothing new while nobody can say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_to_metal.cluster import images
from tests.cluster import support
from tests.cluster.support import Running
from tests.waiting import until

pytestmark = pytest.mark.cluster
NAMESPACE = "guarded"


class Keys:
    """A signing key, and cosign with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run("generate-key-pair")
        self._run("signing-config", "create", "--out", "signing-config.json")
        self._run("trusted-root", "create", "--out", "trusted-root.json")

    @property
    def public(self) -> str:
        return (self._folder / "cosign.pub").read_text()

    def sign(self, image: str) -> None:
        offline = ["--signing-config", "signing-config.json", "--trusted-root", "trusted-root.json"]
        self._run("sign", "--key", "cosign.key", *offline, image)

    def _run(self, *arguments: str) -> None:
        cosign = support.State.find(support.ROOT).tools / "cosign"
        settings = {**os.environ, "COSIGN_PASSWORD": "", "COSIGN_YES": "true"}
        subprocess.run([cosign, *arguments], cwd=self._folder, env=settings, check=True, capture_output=True)


def policy(key: str) -> dict[str, Any]:
    verify = "images.containers.map(image, verifyImageSignatures(image, [attestors.helix])).all(e, e > 0)"
    return {
        "apiVersion": "policies.kyverno.io/v1", "kind": "ImageValidatingPolicy", "metadata": {"name": "signed"},
        "spec": {
            "failurePolicy": "Fail", "validationActions": ["Deny"], "webhookConfiguration": {"timeoutSeconds": 15},
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                                   "resources": ["pods"]}],
            },
            "matchImageReferences": [{"glob": "*"}],
            "validationConfigurations": {"mutateDigest": False, "verifyDigest": True, "required": True},
            "credentials": {"allowInsecureRegistry": True},
            "attestors": [{"name": "helix", "cosign": {
                "key": {"data": key}, "ctlog": {"insecureIgnoreTlog": True, "insecureIgnoreSCT": True},
            }}],
            "validations": [{"expression": verify, "message": "the image is not signed by our key"}],
        },
    }  # fmt: skip


def create(cluster: Running, pod: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod), check=False)


@pytest.fixture
def keys(cluster: Running, tmp_path: Path) -> Iterator[Keys]:
    """The policy is in force, for a key of the test's own."""
    made = Keys(tmp_path)
    cluster.apply(support.namespace(NAMESPACE), policy(made.public))
    ask = cluster.pod("ask", namespace=NAMESPACE)
    until(lambda: "not signed by our key" in create(cluster, ask).stderr, "the policy is in force")
    yield made
    cluster.kubectl("delete", "imagevalidatingpolicy", "signed")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_an_unsigned_image_is_refused_a_signed_one_runs_and_without_kyverno_nothing_new(
    cluster: Running, keys: Keys
) -> None:
    unsigned, elsewhere = cluster.pod("unsigned", namespace=NAMESPACE), cluster.pod("elsewhere")
    refused = create(cluster, unsigned)
    assert refused.returncode != 0
    assert "the image is not signed by our key" in refused.stderr
    # The same image, where the policy does not reach.
    assert create(cluster, elsewhere).returncode == 0
    image = cluster.image("pause")
    assert create(cluster, cluster.pod("early", namespace=NAMESPACE, container={"image": image})).returncode != 0
    # Outside the node the registry has no name, only an address; a signature is about a digest.
    keys.sign(image.replace(images.NAME, cluster.said["registry"]))
    cluster.apply(cluster.pod("signed", namespace=NAMESPACE, container={"image": image}))
    with cluster.stopped("kyverno"):
        later = cluster.pod("later", namespace=NAMESPACE, container={"image": image})
        closed = create(cluster, later)
        assert closed.returncode != 0
        assert "failed calling webhook" in closed.stderr
        path = "jsonpath={.status.phase}"
        assert cluster.kubectl(f"--namespace={NAMESPACE}", "get", "pod", "signed", "-o", path).stdout == "Running"
    until(lambda: create(cluster, later).returncode == 0, "it is admitted again")
