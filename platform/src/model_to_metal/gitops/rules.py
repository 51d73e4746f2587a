"""What we hold against rendered workloads, beyond what a schema can say. Pure: manifests in, faults out.

Each rule is a function; a test plants the fault that each is there for. `RULES` lists all but the last:

- `registers-its-shard`: a server has the token, names one directory, and calls that, DNS and a collector, nothing else.
- `image-by-digest`: an image is `HOST/NAME@sha256:DIGEST`.
- `image-is-claimed`: HELIX_IMAGE_DIGEST, from a ConfigMap, is the image's digest.
- `knows-its-environment`: HELIX_ENVIRONMENT is the namespace's.
- `settings-are-frozen`: a pod's ConfigMaps are there, immutable, and named by content; its one secret is the token.
- `no-token`: no pod gets a token of the cluster's API, or runs as the default account.
- `restricted`: Kubernetes' restricted profile, and a read-only root.
- `has-limits`: CPU and memory are requested, and memory is limited.
- `is-probed`: readiness and liveness ask /v2/health/ready and /v2/health/live.
- `drains`: there is time to answer what was accepted.
- `survives-disruption`: a PodDisruptionBudget selects each server.
- `is-fenced`: a NetworkPolicy selects each, for both directions; only the named namespaces may call it.
- `one-owner-of-replicas`: an autoscaler or Git says how many, not both, and one does.
- `keeps-its-shard`: the shard lies on a claim of the pod's own, which is retained.
- `belongs-to-its-model`: everything of a model has its kinds, its namespace, and its name in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any

from model_to_metal.gitops.manifests import (
    MODEL_KINDS,
    WORKLOADS,
    Manifest,
    ManifestFault,
    Rule,
    containers,
    faults,
    get,
    group_and_kind,
    items,
    of_kind,
    pod_of,
    selects,
    title,
)

TRUST = "helix-trust"
"""The ConfigMap with the trust root: the platform's own, never a model's."""
DRAIN_S = 45
"""The server's own drain of 30 s, the pause in which routes are withdrawn, and some room."""
SHARD = "/var/lib/helix/log"

_IMAGE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")
_KEEP = {"whenDeleted": "Retain", "whenScaled": "Retain"}

_CALLED = (
    ("helix-directory", "app.kubernetes.io/component", "directory"),
    ("kube-system", "k8s-app", "kube-dns"),
)
"""Whom a server may call: namespace, and a label of the pods."""
_CALLERS = tuple(
    {"namespaceSelector": {"matchLabels": {f"helix.example/{who}": "true"}}} for who in ("client", "monitoring")
)
"""Who may call a server: namespaces that say so by a label, which only a platform engineer sets."""
_TOKEN = {
    "secretName": "helix-directory-token",
    "defaultMode": 0o440,
    "items": [{"key": "token", "path": "token"}],
}
"""The one secret that a server gets: what registers its shard. The platform's own, and not in Git."""
_COLLECTOR = {"namespaceSelector": {"matchLabels": {"helix.example/collector": "true"}}}
"""And where it may send traces, where an environment says so."""


def check(manifests: Iterable[Manifest]) -> list[ManifestFault]:
    """Every fault of every rule, sorted."""
    return faults(RULES, manifests)


def image_by_digest(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A tag may name another image tomorrow; a name without a registry is somebody else's."""
    for workload in of_kind(manifests, *WORKLOADS, "Pod"):
        pods = containers(workload) if workload["kind"] != "Pod" else containers({"spec": {"template": workload}})
        for container in pods:
            image = container.get("image")
            host = str(image).partition("/")[0]
            if not _IMAGE.fullmatch(str(image)) or not {".", ":"} & set(host):
                yield ManifestFault(
                    title(workload), "image-by-digest", f"the image is {image!r}", "name it HOST/NAME@sha256:DIGEST"
                )


def image_is_claimed(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """The server checks the claimed digest against its release: the claim must be the image's."""
    settings = {get(item, "metadata", "name"): item for item in of_kind(manifests, "ConfigMap")}
    for workload, container in _containers(manifests):
        claims = _variables(container, "HELIX_IMAGE_DIGEST")
        reference = get(claims, 0, "valueFrom", "configMapKeyRef")
        said = get(settings.get(get(reference, "name")), "data", str(get(reference, "key")))
        if said != str(container.get("image")).partition("@")[2]:
            yield ManifestFault(
                title(workload), "image-is-claimed", f"HELIX_IMAGE_DIGEST is {said!r}, not the image's digest",
                "let the overlay's ConfigMap say it",
            )  # fmt: skip


def knows_its_environment(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A server that is told where it runs demands a promotion for there; the namespace says where that is."""
    for workload, container in _containers(manifests):
        said = [get(item, "value") for item in _variables(container, "HELIX_ENVIRONMENT")]
        if [f"helix-{name}" for name in said] != [get(workload, "metadata", "namespace")]:
            yield ManifestFault(
                title(workload), "knows-its-environment", f"HELIX_ENVIRONMENT is {said}, not its namespace's",
                "set it once, in the environment's _common",
            )  # fmt: skip


def settings_are_frozen(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """What a pod mounts is there, immutable, and named by its content; the platform's are trust root and token."""
    settings = {get(item, "metadata", "name"): item for item in of_kind(manifests, "ConfigMap")}
    for workload in of_kind(manifests, *WORKLOADS):
        for name in sorted(set(_config_maps(pod_of(workload))) - {TRUST}):
            found = settings.get(name)
            if found is None or found.get("immutable") is not True or not re.search(r"-[a-z0-9]{10}$", name):
                how = "is not there" if found is None else "may change under the pod"
                yield ManifestFault(
                    title(workload), "settings-are-frozen", f"ConfigMap {name} {how}", "use configMapGenerator"
                )
        for secret in _secrets(pod_of(workload)):
            if secret != _TOKEN:
                yield ManifestFault(
                    title(workload), "settings-are-frozen", f"a secret reaches the pod: {secret}",
                    "servers need none but the directory's token",
                )  # fmt: skip


def no_default_token(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A model's code has no business with the cluster's API."""
    for workload in of_kind(manifests, *WORKLOADS):
        pod = pod_of(workload)
        if pod.get("automountServiceAccountToken") is not False:
            yield ManifestFault(
                title(workload), "no-token", "the pod gets a service account token",
                "set automountServiceAccountToken: false",
            )  # fmt: skip
        if pod.get("serviceAccountName") in (None, "", "default"):
            yield ManifestFault(title(workload), "no-token", "the pod runs as the default account", "give it its own")
        if any("serviceAccountToken" in source for source in _sources(pod)):
            yield ManifestFault(title(workload), "no-token", "a volume projects a token", "remove it")
    for account in of_kind(manifests, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield ManifestFault(
                title(account), "no-token", "tokens are mounted", "set automountServiceAccountToken: false"
            )


def restricted(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Kubernetes' restricted profile, and a read-only root."""
    for workload in of_kind(manifests, *WORKLOADS):
        pod = pod_of(workload)
        wrong = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
        wrong += ["a hostPath volume"] if any("hostPath" in volume for volume in items(pod, "volumes")) else []
        for container in containers(workload):
            own, whole = container.get("securityContext") or {}, pod.get("securityContext") or {}
            both = {**whole, **own}
            wrong += [] if both.get("runAsNonRoot") is True and both.get("runAsUser") != 0 else ["runAsNonRoot"]
            wrong += [] if get(both, "seccompProfile", "type") == "RuntimeDefault" else ["seccompProfile"]
            wrong += [] if own.get("allowPrivilegeEscalation") is False else ["allowPrivilegeEscalation"]
            wrong += [] if own.get("readOnlyRootFilesystem") is True else ["readOnlyRootFilesystem"]
            wrong += [] if own.get("capabilities") == {"drop": ["ALL"]} else ["capabilities"]
            wrong += ["privileged"] if own.get("privileged") else []
        for name in wrong:
            yield ManifestFault(title(workload), "restricted", f"{name} is not restricted", "see base/statefulset.yaml")


def has_limits(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A pod asks for what it needs, and may not take a node's memory."""
    wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
    for workload, container in _containers(manifests):
        for kind, what in wanted:
            if not get(container, "resources", kind, what):
                yield ManifestFault(title(workload), "has-limits", f"no {kind}.{what}", f"set resources.{kind}.{what}")


def is_probed(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Lineage completeness is readiness: routes follow /v2/health/ready."""
    wanted = {"readinessProbe": "/v2/health/ready", "livenessProbe": "/v2/health/live"}
    for workload in of_kind(manifests, "StatefulSet", "Deployment"):
        for container in items(pod_of(workload), "containers"):
            for probe, path in wanted.items():
                if get(container, probe, "httpGet", "path") != path:
                    yield ManifestFault(
                        title(workload), "is-probed", f"the {probe} does not ask {path}", f"add {probe}"
                    )


def drains(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """What was accepted is answered before the process is killed."""
    for workload in of_kind(manifests, "StatefulSet", "Deployment"):
        seconds = pod_of(workload).get("terminationGracePeriodSeconds")
        if type(seconds) is not int or seconds < DRAIN_S:
            yield ManifestFault(
                title(workload), "drains", f"terminationGracePeriodSeconds is {seconds}", f"give it {DRAIN_S} or more"
            )


def survives_disruption(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Nodes are drained without taking every server away, and servers are kept apart."""
    budgets = of_kind(manifests, "PodDisruptionBudget")
    for workload in of_kind(manifests, "StatefulSet", "Deployment"):
        if not any(selects(get(budget, "spec", "selector"), workload) for budget in budgets):
            yield ManifestFault(title(workload), "survives-disruption", "no PodDisruptionBudget selects it", "add one")


def is_fenced(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A NetworkPolicy says who may talk to it, and to whom it may."""
    policies = of_kind(manifests, "NetworkPolicy")
    for workload in of_kind(manifests, *WORKLOADS):
        both = {
            kind
            for policy in policies
            if selects(get(policy, "spec", "podSelector"), workload)
            for kind in items(policy, "spec", "policyTypes")
        }
        if both != {"Ingress", "Egress"}:
            yield ManifestFault(
                title(workload), "is-fenced", "no NetworkPolicy for both directions selects it", "add one"
            )
    for policy in policies:
        for rule in items(policy, "spec", "ingress"):
            # An empty rule, or one without peers, allows everybody; so may a selector that is empty, or an address.
            peers = items(rule, "from")
            if not peers or any(peer not in _CALLERS for peer in peers):
                yield ManifestFault(
                    title(policy), "is-fenced", f"{peers or 'everybody'} may call a server", "remove the peer"
                )
        if any(not get(rule, "to") for rule in items(policy, "spec", "egress")):
            yield ManifestFault(title(policy), "is-fenced", "an egress rule allows everybody", "name the peers")


def registers_its_shard(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A server names a directory, and may call that, the cluster's DNS and a collector of traces, and nothing else."""
    for workload, container in _containers(manifests):
        if _TOKEN not in [get(volume, "secret") for volume in items(pod_of(workload), "volumes")]:
            yield ManifestFault(
                title(workload), "registers-its-shard", "no volume holds the token that registers shards",
                "see base/statefulset.yaml",
            )  # fmt: skip
        said = [get(item, "value") for item in _variables(container, "HELIX_DIRECTORY")]
        if len(said) != 1 or not str(said[0]).startswith(("http://", "https://")):
            yield ManifestFault(
                title(workload), "registers-its-shard", f"HELIX_DIRECTORY is {said}, not one URL",
                "set it once, to the directory's service",
            )  # fmt: skip
    for policy in of_kind(manifests, "NetworkPolicy"):
        peers = [peer for rule in items(policy, "spec", "egress") for peer in items(rule, "to")]
        for peer in peers:
            if peer not in (_COLLECTOR, *(_peer(*called) for called in _CALLED)):
                yield ManifestFault(
                    title(policy), "registers-its-shard", f"a server may call {peer}", "remove the peer"
                )


def _peer(namespace: str, label: str, value: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchExpressions": [{"key": label, "operator": "In", "values": [value]}]},
    }


def has_one_owner_of_replicas(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """Where an autoscaler owns the number of replicas, Git must not reset it at each sync."""
    targets = {
        (get(scaler, "spec", "scaleTargetRef", "kind"), get(scaler, "spec", "scaleTargetRef", "name"))
        for scaler in of_kind(manifests, "HorizontalPodAutoscaler")
    }
    for workload in of_kind(manifests, "StatefulSet", "Deployment"):
        scaled = (workload["kind"], get(workload, "metadata", "name")) in targets
        if scaled == (get(workload, "spec", "replicas") is not None):
            what = "replicas is set although an autoscaler owns it" if scaled else "nobody says how many replicas"
            yield ManifestFault(title(workload), "one-owner-of-replicas", what, "leave replicas to the autoscaler")


def keeps_its_shard(manifests: Sequence[Manifest]) -> Iterator[ManifestFault]:
    """A server's shard lies on a volume of its own, which outlives the pod and the StatefulSet."""
    for workload in of_kind(manifests, "StatefulSet", "Deployment"):
        claims = {get(claim, "metadata", "name") for claim in items(workload, "spec", "volumeClaimTemplates")}
        mounted = {
            get(mount, "name")
            for container in items(pod_of(workload), "containers")
            for mount in items(container, "volumeMounts")
            if get(mount, "mountPath") == SHARD
        }
        if not mounted or not mounted <= claims:
            yield ManifestFault(
                title(workload), "keeps-its-shard", f"{SHARD} is on no claim of its own", "add a claim template"
            )
        if get(workload, "spec", "persistentVolumeClaimRetentionPolicy") != _KEEP:
            yield ManifestFault(title(workload), "keeps-its-shard", "its volumes may be deleted", "retain them")


RULES: tuple[Rule, ...] = (
    registers_its_shard,
    image_by_digest,
    image_is_claimed,
    knows_its_environment,
    settings_are_frozen,
    no_default_token,
    restricted,
    has_limits,
    is_probed,
    drains,
    survives_disruption,
    is_fenced,
    has_one_owner_of_replicas,
    keeps_its_shard,
)


def belongs_to_its_model(manifests: Iterable[Manifest], environment: str, model: str) -> list[ManifestFault]:
    """Everything of a model has its kinds, its namespace and its name in front: nothing takes another's place."""
    found = []
    for manifest in manifests:
        wrong = []
        if group_and_kind(manifest) not in MODEL_KINDS:
            wrong.append("a model has no such kind")
        if get(manifest, "metadata", "namespace") != f"helix-{environment}":
            wrong.append(f"it is in the namespace {get(manifest, 'metadata', 'namespace')!r}")
        if not str(get(manifest, "metadata", "name")).startswith(f"{model}-"):
            wrong.append("the name is not the model's")
        found += [ManifestFault(title(manifest), "belongs-to-its-model", what, "remove it") for what in wrong]
    return found


def _containers(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each workload with each of its containers."""
    for workload in of_kind(manifests, *WORKLOADS):
        yield from ((workload, container) for container in containers(workload))


def _variables(container: Any, name: str) -> list[Any]:
    """The entries of a container's environment with that name; there should be one."""
    return [item for item in items(container, "env") if get(item, "name") == name]


def _sources(pod: Manifest) -> Iterator[dict[str, Any]]:
    for volume in items(pod, "volumes"):
        yield from (source for source in items(volume, "projected", "sources") if isinstance(source, dict))


def _config_maps(value: Any) -> Iterator[str]:
    """Names of the ConfigMaps that something below refers to."""
    return (str(get(item, "name")) for item in _below(value, {"configMap", "configMapKeyRef", "configMapRef"}))


def _secrets(value: Any) -> Iterator[Any]:
    """What refers to a secret, wherever it stands below."""
    return _below(value, {"secretRef", "secretKeyRef", "secret"})


def _below(value: Any, keys: Set[str]) -> Iterator[Any]:
    """What stands under one of the keys, however deep."""
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key in keys)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _below(item, keys)
