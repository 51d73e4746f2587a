"""What we hold against Argo CD's own objects. Pure.

As `rules`: each rule is a function, `RULES` lists them, and a test plants each one's fault.

- `project-is-fixed`: an Application's project is one of ours, and not the default one.
- `source-is-ours`: it comes from a project's repository at main, and from no chart.
- `template-is-strict`: a missing key is an error; deleting an ApplicationSet deletes nothing that serves.
- `project-is-narrow`: a project names its repositories, destinations and kinds, without a wildcard.
- `cluster-equals-git`: drift is undone, and what Git no longer names is removed.
- `resources-have-one-owner`: no Application takes over what another one made.
- `models-get-the-kinds-of-base`: the models' project allows what `base/` makes, and nothing cluster-wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from model_to_metal.gitops.manifests import (
    MODEL_KINDS,
    Manifest,
    ManifestFault,
    Rule,
    faults,
    get,
    items,
    of_kind,
    title,
)

MODELS = "helix-models"
"""The project of every model's Application."""


def check(manifests: Iterable[Manifest]) -> list[ManifestFault]:
    """Every fault of every rule, sorted."""
    return faults(RULES, manifests)


def project_is_fixed(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A project from a template is whatever a folder's name says; the default project may do everything."""
    projects = {get(item, "metadata", "name") for item in of_kind(manifests, "AppProject")}
    for item, spec in _applications(manifests):
        if get(spec, "project") not in projects - {"default"}:
            yield ManifestFault(
                title(item), "project-is-fixed", f"the project is {get(spec, 'project')!r}", "name one of ours"
            )


def source_is_ours(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Everything comes from this repository's main branch; nothing follows HEAD, a tag or a chart."""
    allowed = {repo for item in of_kind(manifests, "AppProject") for repo in items(item, "spec", "sourceRepos")}
    for item, spec in _applications(manifests):
        source = get(spec, "source")
        if get(source, "repoURL") not in allowed or get(source, "targetRevision") != "main" or get(source, "chart"):
            yield ManifestFault(
                title(item), "source-is-ours", f"the source is {source}", "use the project's repository at main"
            )


def template_is_strict(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A missing key is an error, not an empty name; what a folder's removal leaves running is a person's to remove."""
    for item in of_kind(manifests, "ApplicationSet"):
        spec = item.get("spec")
        if get(spec, "goTemplate") is not True or items(spec, "goTemplateOptions") != ["missingkey=error"]:
            yield ManifestFault(title(item), "template-is-strict", "missing keys are let through", "missingkey=error")
        if get(spec, "syncPolicy", "preserveResourcesOnDeletion") is not True:
            yield ManifestFault(
                title(item),
                "template-is-strict",
                "deleting it deletes what serves",
                "preserveResourcesOnDeletion: true",
            )


def project_is_narrow(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A project names its repositories, namespaces and kinds; a wildcard names nothing."""
    for item in of_kind(manifests, "AppProject"):
        spec = item.get("spec")
        lists = ("sourceRepos", "destinations", "namespaceResourceWhitelist")
        wide = [name for name in lists if not items(spec, name)]
        wide += [name for name in (*lists, "clusterResourceWhitelist") if "*" in str(get(spec, name))]
        for name in wide:
            yield ManifestFault(title(item), "project-is-narrow", f"{name} allows everything", "name what is needed")


def resources_have_one_owner(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Argo CD lets an Application take over what another one made (a trust root, say), unless it is told not to."""
    for item, spec in _applications(manifests):
        if "FailOnSharedResource=true" not in items(spec, "syncPolicy", "syncOptions"):
            yield ManifestFault(
                title(item), "resources-have-one-owner", "it may take over another's",
                "syncOptions: [FailOnSharedResource=true]",
            )  # fmt: skip


def models_get_the_kinds_of_base(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """The models' project allows what `base/` makes, no other kind, and nothing cluster-wide."""
    for item in of_kind(manifests, "AppProject"):
        if get(item, "metadata", "name") != MODELS:
            continue
        kinds = {(get(row, "group"), get(row, "kind")) for row in items(item, "spec", "namespaceResourceWhitelist")}
        if kinds != MODEL_KINDS or items(item, "spec", "clusterResourceWhitelist"):
            yield ManifestFault(
                title(item), "models-get-the-kinds-of-base", "it allows other kinds", "see apps/project.yaml"
            )


def cluster_equals_git(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Drift is undone, and what Git no longer names is removed."""
    for item, spec in _applications(manifests):
        automated = get(spec, "syncPolicy", "automated")
        if get(automated, "selfHeal") is not True or get(automated, "prune") is not True:
            yield ManifestFault(
                title(item), "cluster-equals-git", "drift stays", "automated: {prune: true, selfHeal: true}"
            )


RULES: tuple[Rule, ...] = (
    project_is_fixed,
    source_is_ours,
    template_is_strict,
    project_is_narrow,
    cluster_equals_git,
    resources_have_one_owner,
    models_get_the_kinds_of_base,
)


def _applications(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, Any]]:
    """Applications with their specification, and those that an ApplicationSet makes."""
    for item in of_kind(manifests, "Application"):
        yield item, item.get("spec")
    for item in of_kind(manifests, "ApplicationSet"):
        yield item, get(item, "spec", "template", "spec")
