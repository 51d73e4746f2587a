"""What may lie under gitops/argocd: each folder that Argo CD would take and no check used to see is refused."""

from __future__ import annotations

import pytest

from model_to_metal.gitops import tree_rules
from model_to_metal.gitops.manifests import ManifestFault
from model_to_metal.gitops.render import Renderer, check_all, sample

ENVIRONMENTS = "gitops/argocd/environments"
PLAIN = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: helix-trust}\n"
OPEN = b"""apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{}]}
"""
KUSTOMIZATION = b"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
BOMB = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (at, at, at - 1, at - 1) for at in range(1, 40))
MERGES = b"a0: &a0 {x: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [*a%d, *a%d]}\n" % (at, at, at - 1, at - 1) for at in range(1, 40)
)

ADDED = [
    ("a folder of plain YAML", f"{ENVIRONMENTS}/staging/evil/pod.yaml", PLAIN, "known-files"),
    ("an open NetworkPolicy", f"{ENVIRONMENTS}/production/evil/network.yaml", OPEN, "known-files"),
    ("another spelling", f"{ENVIRONMENTS}/staging/evil/kustomization.yml", KUSTOMIZATION, "one-kustomization"),
    ("a third spelling", f"{ENVIRONMENTS}/staging/evil/Kustomization", KUSTOMIZATION, "one-kustomization"),
    ("other capitals", "gitops/argocd/base/Kustomization.yaml", KUSTOMIZATION, "one-kustomization"),
    ("a folder below a model's", f"{ENVIRONMENTS}/staging/m/deep/kustomization.yaml", KUSTOMIZATION, "known-files"),
    ("a folder with an underscore", f"{ENVIRONMENTS}/staging/_evil/kustomization.yaml", KUSTOMIZATION, "known-files"),
    ("a hidden folder", f"{ENVIRONMENTS}/staging/.evil/kustomization.yaml", KUSTOMIZATION, "known-files"),
    ("the sample's name", f"{ENVIRONMENTS}/staging/sample/kustomization.yaml", KUSTOMIZATION, "known-files"),
    ("a file of an environment", f"{ENVIRONMENTS}/staging/extra.yaml", PLAIN, "known-files"),
    ("a file beside what is shared", f"{ENVIRONMENTS}/staging/_common/extra.yaml", PLAIN, "known-files"),
    ("an environment without policy", f"{ENVIRONMENTS}/evil/m/kustomization.yaml", KUSTOMIZATION, "known-files"),
    ("a file among environments", f"{ENVIRONMENTS}/evil.yaml", PLAIN, "known-files"),
    ("overrides of parameters", f"{ENVIRONMENTS}/staging/m/.argocd-source.yaml", PLAIN, "one-kustomization"),
    ("a Helm chart", "gitops/argocd/policies/Chart.yaml", b"name: x\n", "one-kustomization"),
    ("what Git does to files", "gitops/argocd/base/.gitattributes", b"* ident\n", "one-kustomization"),
    ("a submodule", "gitops/argocd/.gitmodules", b"", "one-kustomization"),
    ("a name of bytes", "gitops/argocd/base/caf\udce9.yaml", PLAIN, "one-meaning"),
    ("a name in another script", "gitops/argocd/base/b\u0430se.yaml", PLAIN, "one-meaning"),
    ("a name that is an option", "gitops/argocd/base/--enable-helm", PLAIN, "one-meaning"),
    ("a name with an escape", "gitops/argocd/base/\x1b[2Jx.yaml", PLAIN, "one-meaning"),
    ("a folder that is a scheme", "gitops/argocd/base/https:/example.org/x.yaml", PLAIN, "one-meaning"),
    ("a huge file", "gitops/argocd/base/huge.yaml", b"#" * (tree_rules.MAX_FILE_BYTES + 1), "one-meaning"),
    ("a bomb of aliases", "gitops/argocd/base/bomb.yaml", BOMB, "one-meaning"),
    ("a bomb of merges", "gitops/argocd/base/merges.yaml", MERGES, "one-meaning"),
    ("an anchor in itself", "gitops/argocd/base/circle.yaml", b"a: &a [*a]\n", "one-meaning"),
    ("a key twice", "gitops/argocd/base/twice.yaml", PLAIN + b"kind: Secret\n", "one-meaning"),
    ("a merged key", "gitops/argocd/base/merged.yaml", PLAIN + b"<<: {kind: Secret}\n", "one-meaning"),
    ("a key that is a list", "gitops/argocd/base/listed.yaml", b"? [a]\n: b\n", "one-meaning"),
    ("a tab", "gitops/argocd/base/tab.yaml", b"a:\n\tb: c\n", "one-meaning"),
    ("deep nesting", "gitops/argocd/base/deep.yaml", b"[" * 5000, "one-meaning"),
    ("deep JSON", "gitops/argocd/policies/deep.json", b"[" * 5000, "one-meaning"),
    ("a key twice in JSON", "gitops/argocd/policies/twice.json", b'{"a": 1, "a": 2}', "one-meaning"),
    ("a policy twice in one", f"{ENVIRONMENTS}/staging/policy.json", b'{"version": 1, "version": 1}', "known-files"),
    ("overrides for one Application", "gitops/argocd/apps/.argocd-source-helix.yaml", PLAIN, "one-kustomization"),
]


def rules(files: dict[str, bytes]) -> set[str]:
    return {fault.rule for fault in tree_rules.check(files)}


def test_what_is_there_is_allowed(files: dict[str, bytes]) -> None:
    assert tree_rules.check(files) == []


@pytest.mark.parametrize("added", ADDED, ids=lambda added: added[0].replace(" ", "-"))
def test_a_file_that_argo_cd_would_take_is_refused(
    renderer: Renderer, files: dict[str, bytes], added: tuple[str, str, bytes, str]
) -> None:
    _, path, data, rule = added
    files[path] = data
    assert rule in rules(files)
    assert rule in {fault.rule for fault in check_all(renderer, files)}


@pytest.mark.parametrize(
    "line",
    [
        "resources:\n- https://example.org/base?ref=main\n",
        "resources:\n- github.com/somebody/base\n",
        "resources:\n- git@example.org:base\n",
        "resources:\n- ssh://example.org/base\n",
        "resources:\n- ../../../../models/proteinmpnn/x.yaml\n",
        "resources:\n- /etc/passwd\n",
        "resources:\n- nothing.yaml\n",
        "components:\n- s3::https://example.org/base\n",
        "bases:\n- https://example.org/base\n",
        "helmCharts:\n- {name: x, repo: https://example.org}\n",
        "generators:\n- x.yaml\n",
        "transformers:\n- x.yaml\n",
        "openapi: {path: https://example.org/x}\n",
        "patches:\n- path: https://example.org/patch.yaml\n",
        "configMapGenerator:\n- name: x\n  files: [a=https://example.org/x]\n",
        "configMapGenerator:\n- name: x\n  envs: [../../../x]\n",
        "secretGenerator:\n- name: x\n",
    ],
)
def test_what_is_taken_from_elsewhere_is_refused(files: dict[str, bytes], line: str) -> None:
    path = "gitops/argocd/policies/fence/kustomization.yaml"
    files[path] = KUSTOMIZATION + line.encode()
    assert rules(files) == {"nothing-remote"}
    assert {fault.where for fault in tree_rules.check(files)} == {path}


@pytest.mark.parametrize("place", ["github.com/somebody/base", "https:/example.org"])
def test_a_folder_of_that_name_does_not_make_it_ours(files: dict[str, bytes], place: str) -> None:
    """kustomize asks the network first for what looks like an address: that is what was tried."""
    folder = "gitops/argocd/policies/fence"
    files[f"{folder}/{place}/kustomization.yaml"] = KUSTOMIZATION
    files[f"{folder}/kustomization.yaml"] = KUSTOMIZATION + f"resources:\n- {place.replace(':/', '://')}\n".encode()
    faults = tree_rules.check(files)
    assert f"{folder}/kustomization.yaml" in {fault.where for fault in faults if fault.rule == "nothing-remote"}


@pytest.mark.parametrize("text", [b"[", b"- x", b"", b"\xff", b"[" * 5000, KUSTOMIZATION + b"---\n" + KUSTOMIZATION])
def test_what_is_no_kustomization_is_refused(files: dict[str, bytes], text: bytes) -> None:
    files["gitops/argocd/policies/fence/kustomization.yaml"] = text
    assert "nothing-remote" in rules(files) <= {"nothing-remote", "one-meaning"}


def test_carriage_returns_and_other_documents_are_only_yaml(files: dict[str, bytes]) -> None:
    files["gitops/argocd/base/more.yaml"] = PLAIN.replace(b"\n", b"\r\n") + b"---\r\n" + PLAIN
    assert tree_rules.check(files) == []


def test_a_fault_can_be_printed_whatever_a_file_is_called() -> None:
    fault = ManifestFault("a\udcff\x1b[2J", "one-meaning", "x", "y")
    assert str(fault) == "one-meaning  a\\udcff\\x1b[2J  x; fix: y"
    assert fault.to_json()["where"] == "a\\udcff\\x1b[2J"


def test_the_samples_own_bundles_are_no_promotion(files: dict[str, bytes]) -> None:
    found = tree_rules.check_model({**files, **sample(files, "staging")}, "staging", "sample")
    assert [fault.rule for fault in found] == ["written-by-promote"]
