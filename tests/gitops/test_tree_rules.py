"""What may lie under gitops/argocd: each folder that Argo CD would take and no check used to see is refused."""

from __future__ import annotations

import pytest

from model_to_metal.gitops import tree_rules
from model_to_metal.gitops.render import Renderer, check_all, sample

ENVIRONMENTS = "gitops/argocd/environments"
PLAIN = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: helix-trust}\n"
OPEN = b"""apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{}]}
"""
KUSTOMIZATION = b"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"

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


@pytest.mark.parametrize("text", [b"[", b"- x", b"", b"\xff", b"[" * 5000])
def test_what_is_no_kustomization_is_refused(files: dict[str, bytes], text: bytes) -> None:
    files["gitops/argocd/policies/fence/kustomization.yaml"] = text
    assert rules(files) == {"nothing-remote"}


def test_the_samples_own_bundles_are_no_promotion(files: dict[str, bytes]) -> None:
    found = tree_rules.check_model({**files, **sample(files, "staging")}, "staging", "sample")
    assert [fault.rule for fault in found] == ["written-by-promote"]
