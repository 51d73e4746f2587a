"""What Argo CD would make of gitops/argocd: rendered by kustomize, checked by kubeconform and by our rules."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest

from helix_lineage.attestations.trust import Trust
from model_to_metal.errors import GitopsError
from model_to_metal.gitops import layout
from model_to_metal.gitops.manifests import Manifest, ManifestFault, get, of_kind, parse
from model_to_metal.gitops.policy import Denied, Policy
from model_to_metal.gitops.render import Renderer, check_all, check_argo, check_model, sample
from model_to_metal.gitops.rules import belongs_to_its_model
from model_to_metal.gitops.tree_rules import SAMPLE

BASE = "gitops/argocd/base"
Planted = tuple[str, str, str, str]
"""File, text, what stands in its place, the rule that must see it."""


def faults(renderer: Renderer, files: dict[str, bytes], environment: str = "production") -> set[str]:
    """`rule` of every fault of the sample."""
    found = check_model(renderer, {**files, **sample(files, environment)}, environment, SAMPLE)
    return {fault.rule for fault in found}


def renderer_build(renderer: Renderer, files: dict[str, bytes]) -> list[Manifest]:
    """The sample's manifests in production."""
    with tempfile.TemporaryDirectory() as name:
        for path, data in {**files, **sample(files, "production")}.items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(data)
        return renderer.build(Path(name), layout.folder("production", SAMPLE))


def test_it_renders_and_breaks_no_rule(renderer: Renderer, files: dict[str, bytes]) -> None:
    assert check_all(renderer, files) == []


PLANTED = [
    ("statefulset.yaml", "        image: model-server", "        image: other:latest", "image-by-digest"),
    ("statefulset.yaml", "image: model-server", "image: server", "image-is-claimed"),
    ("statefulset.yaml", "        - name: HELIX_HOST", "        - name: HELIX_ENVIRONMENT", "knows-its-environment"),
    ("statefulset.yaml", "              name: release\n              key: image", "              name: x\n              key: image", "settings-are-frozen"),  # noqa: E501
    ("statefulset.yaml", "      automountServiceAccountToken: false\n", "", "no-token"),
    ("account.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "no-token"),
    ("statefulset.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "restricted"),
    ("statefulset.yaml", "memory: 1Gi\n        securityContext", "cpu: '1'\n        securityContext", "has-limits"),
    ("statefulset.yaml", "path: /v2/health/ready", "path: /v2/health/live", "is-probed"),
    ("statefulset.yaml", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 30", "drains"),
    ("kustomization.yaml", "- disruption.yaml\n", "", "survives-disruption"),
    ("kustomization.yaml", "- network.yaml\n", "", "is-fenced"),
    ("network.yaml", "  egress:\n", "  egress:\n  - {}\n", "is-fenced"),
    ("network.yaml", "    - namespaceSelector:\n        matchLabels:\n          helix.example/client: \"true\"", "    - namespaceSelector: {}", "is-fenced"),  # noqa: E501
    ("network.yaml", "    - namespaceSelector:\n        matchLabels:\n          helix.example/client: \"true\"", "    - ipBlock: {cidr: 0.0.0.0/0}", "is-fenced"),  # noqa: E501
    ("network.yaml", "metadata.name: helix-directory", "metadata.name: elsewhere", "registers-its-shard"),
    ("network.yaml", "values: [kube-dns]", "values: [other]", "registers-its-shard"),
    ("network.yaml", "In\n          values: [kube", "NotIn\n          values: [kube", "registers-its-shard"),
    ("statefulset.yaml", "        - name: HELIX_DIRECTORY", "        - name: DIRECTORY", "registers-its-shard"),
    ("statefulset.yaml", "secretName: helix-directory-token", "secretName: other", "settings-are-frozen"),
    ("statefulset.yaml", "secretName: helix-directory-token", "secretName: other", "registers-its-shard"),
    ("statefulset.yaml", "value: http://directory", "value: directory", "registers-its-shard"),
    ("statefulset.yaml", "  minReadySeconds: 10", "  replicas: 2", "one-owner-of-replicas"),
    ("kustomization.yaml", "- autoscaler.yaml\n", "", "one-owner-of-replicas"),
    ("statefulset.yaml", "        - name: log\n          mountPath", "        - name: scratch\n          mountPath", "keeps-its-shard"),  # noqa: E501
    ("statefulset.yaml", "whenScaled: Retain", "whenScaled: Delete", "keeps-its-shard"),
    ("statefulset.yaml", "podManagementPolicy: Parallel", "podManagment: Parallel", "schema"),
    ("services.yaml", "port: 3000", "port: http", "schema"),
    ("account.yaml", "kind: ServiceAccount\n", "kind: Secret\n", "belongs-to-its-model"),
]  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted[3]}-{planted[0]}")
def test_each_rule_bites(renderer: Renderer, files: dict[str, bytes], planted: Planted) -> None:
    name, old, new, rule = planted
    path = f"{BASE}/{name}"
    text = files[path].decode()
    assert old in text
    files[path] = text.replace(old, new, 1).encode()
    patched = "gitops/argocd/environments/production/_common/kustomization.yaml"
    if "autoscaler" in old:
        files[patched] = files[patched].split(b"patches:")[0]
    assert rule in faults(renderer, files)


def test_an_environment_that_does_not_say_its_name_or_another_is_a_fault(
    renderer: Renderer, files: dict[str, bytes]
) -> None:
    path = "gitops/argocd/environments/staging/_common/kustomization.yaml"
    whole = files[path]
    assert b"value: staging" in whole
    assert faults(renderer, files, "staging") == set()
    for spoilt in (whole.replace(b"value: staging", b"value: production"), whole.split(b"patches:")[0]):
        files[path] = spoilt
        assert faults(renderer, files, "staging") == {"knows-its-environment"}


def test_a_config_map_with_the_name_of_the_trust_root_is_refused(renderer: Renderer, files: dict[str, bytes]) -> None:
    manifests = renderer_build(renderer, files)
    assert belongs_to_its_model(manifests, "production", SAMPLE) == []
    there = {"name": "helix-trust", "namespace": "helix-production"}
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": there}
    assert [fault.where for fault in belongs_to_its_model([*manifests, own], "production", SAMPLE)] == [
        "ConfigMap/helix-trust"
    ]
    elsewhere = {**own, "metadata": {"name": f"{SAMPLE}-x", "namespace": "argocd"}}
    assert len(belongs_to_its_model([elsewhere], "production", SAMPLE)) == 1


def test_a_collector_of_traces_may_be_called(renderer: Renderer, files: dict[str, bytes]) -> None:
    collector = b"helix.example/collector: 'true'"
    rule = b"  egress:\n  - to:\n    - namespaceSelector:\n        matchLabels:\n          " + collector + b"\n"
    path = f"{BASE}/network.yaml"
    files[path] = files[path].replace(b"  egress:\n", rule, 1)
    assert faults(renderer, files) == set()


def test_a_kustomization_that_cannot_be_rendered_is_named(renderer: Renderer, files: dict[str, bytes]) -> None:
    files[f"{BASE}/kustomization.yaml"] += b"- nothing.yaml\n"
    with pytest.raises(GitopsError, match="kustomize refuses it") as caught:
        faults(renderer, files)
    assert caught.value.where == "gitops/argocd/environments/production/sample"


URL = "https://git.helix.example/helix.git"
ARGO = [
    ("apps/models.yaml", "project: helix-models", "project: '{{.path.basename}}'", "project-is-fixed"),
    ("apps/policies.yaml", "project: helix-platform", "project: default", "project-is-fixed"),
    ("apps/models.yaml", "missingkey=error", "missingkey=zero", "template-is-strict"),
    ("apps/models.yaml", "OnDeletion: true", "OnDeletion: false", "template-is-strict"),
    ("apps/policies.yaml", "targetRevision: main", "targetRevision: HEAD", "source-is-ours"),
    ("root.yaml", f"repoURL: {URL}", "repoURL: https://other.example/x.git", "source-is-ours"),
    ("apps/project.yaml", f"  - {URL}", "  - '*'", "project-is-narrow"),
    ("apps/project.yaml", "    namespace: helix-staging", "    namespace: '*'", "project-is-narrow"),
    ("apps/project.yaml", "    kind: StatefulSet", "    kind: '*'", "project-is-narrow"),
    ("apps/models.yaml", "selfHeal: true", "selfHeal: false", "cluster-equals-git"),
    ("apps/models.yaml", "        - FailOnSharedResource=true\n", "", "resources-have-one-owner"),
    ("apps/policies.yaml", "FailOnSharedResource=true", "FailOnSharedResource=false", "resources-have-one-owner"),
    (
        "apps/project.yaml",
        "clusterResourceWhitelist: []",
        "clusterResourceWhitelist: [{group: '', kind: Namespace}]",
        "models-get-the-kinds-of-base",
    ),
    ("apps/project.yaml", "    kind: StatefulSet", "    kind: Deployment", "models-get-the-kinds-of-base"),
    ("apps/models.yaml", "  goTemplate: true", "  gotemplate: true", "schema"),
    ("apps/models.yaml", "  - git:", "  - clusters: {}\n  - git:", "schema"),
]


@pytest.mark.parametrize("planted", ARGO, ids=lambda planted: f"{planted[3]}-{planted[0]}")
def test_each_rule_for_argo_bites(
    renderer: Renderer, files: dict[str, bytes], planted: tuple[str, str, str, str]
) -> None:
    name, old, new, rule = planted
    path = f"gitops/argocd/{name}"
    assert old in files[path].decode()
    files[path] = files[path].decode().replace(old, new, 1).encode()
    assert rule in {fault.rule for fault in check_argo(renderer, files)}


def test_a_kind_that_no_schema_knows_is_a_fault(renderer: Renderer) -> None:
    found = renderer.conform(parse(b"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n", where="x"))
    assert [(fault.where, fault.rule) for fault in found] == [("Secret/x", "schema")]


def test_manifests_that_make_no_sense_are_refused() -> None:
    for text in (b"[", b"a: b", b"- 1", b"kind: X", b"kind: X\nmetadata: 1", b"\xff"):
        with pytest.raises(GitopsError):
            parse(text, where="x")
    assert parse(b"", where="x") == []
    assert str(ManifestFault("a", "b", "c", "d")) == "b  a  c; fix: d"


def test_the_policies_name_the_registry_and_the_namespaces_of_the_environments(
    renderer: Renderer, files: dict[str, bytes]
) -> None:
    names = {path.split("/")[3] for path in files if path.startswith(f"{layout.ENVIRONMENTS}/")}
    assert names == {"staging", "production"}
    policies = {name: Policy.parse(files[layout.policy(name)], where=name) for name in names}
    admission = files["gitops/argocd/policies/images-by-digest.yaml"].decode()
    for name, policy in policies.items():
        assert policy.registry.replace(".", "[.]") in admission
        assert f"helix-{name}" in files[f"gitops/argocd/policies/{name}/namespace.yaml"].decode()
        assert Trust.parse(files[f"gitops/argocd/policies/{name}/trust.json"])
    assert (policies["production"].after, policies["staging"].after) == ("staging", None)
    assert "laptop" not in policies["production"].builders
    assert json.loads(Denied.parse(files[layout.DENIED]).to_bytes()) == json.loads(files[layout.DENIED])


def test_the_repository_is_named_the_same_everywhere(files: dict[str, bytes]) -> None:
    text = b"\n".join(data for path, data in files.items() if path.endswith(".yaml") and "/workflows/" not in path)
    assert len(set(re.findall(rb"https://\S+\.git", text))) == 1


def test_the_models_project_allows_the_kinds_that_a_model_has_and_no_other(
    renderer: Renderer, files: dict[str, bytes], tmp_path: object
) -> None:
    project = parse(files["gitops/argocd/apps/project.yaml"], where="project")[0]
    allowed = {item["kind"] for item in get(project, "spec", "namespaceResourceWhitelist")}
    kinds = {
        str(item["kind"])
        for path, data in files.items()
        if path.startswith(BASE) and not path.endswith("kustomization.yaml")
        for item in parse(data, where=path)
    }
    assert allowed == kinds | {"ConfigMap"}
    assert of_kind([project], "AppProject") == [project]
