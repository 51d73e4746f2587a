"""Rendered manifests: parsed YAML, and what rules ask of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from helix_lineage.errors import printable
from helix_lineage.formats.canonical import Json
from model_to_metal.errors import GitopsError

Manifest = Mapping[str, Any]

MODEL_KINDS = frozenset(
    {
        ("", "ConfigMap"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("apps", "StatefulSet"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
    }
)
"""Group and kind of all that a model server is made of."""
WORKLOADS = ("StatefulSet", "Deployment", "DaemonSet", "Job")


@dataclass(frozen=True, slots=True, order=True)
class ManifestFault:
    """What a rule holds against a manifest."""

    where: str
    """`Kind/name`, or a file."""
    rule: str
    message: str
    fix: str

    def to_json(self) -> dict[str, Json]:
        """As `--json` prints it."""
        told = {"rule": self.rule, "where": self.where, "message": self.message, "fix": self.fix}
        return {name: printable(text) for name, text in told.items()}

    def __str__(self) -> str:
        return printable(f"{self.rule}  {self.where}  {self.message}; fix: {self.fix}", keep="\n\t")


class _Plain(yaml.SafeLoader):
    """YAML that every reader takes for the same, and that is no larger in memory than in the file."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise ComposerError(None, None, "anchors and aliases are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None)
        if twice is not None or "<<" in keys:
            what = "<< is not used here" if twice is None else f"the key {twice!r} stands there twice"
            raise ConstructorError(None, None, what, node.start_mark)
        return super().construct_mapping(node, deep)


def load(text: bytes) -> list[Any]:
    """The documents of a YAML stream without aliases, merges or repeated keys. Raises ValueError."""
    try:
        return list(yaml.load_all(text, Loader=_Plain))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


Rule = Callable[[Sequence[Manifest]], Iterator[ManifestFault]]


def faults(rules: Iterable[Rule], manifests: Iterable[Manifest]) -> list[ManifestFault]:
    """Every fault of every rule, sorted."""
    every = list(manifests)
    return sorted(fault for rule in rules for fault in rule(every))


def parse(text: bytes, *, where: str) -> list[Manifest]:
    """The manifests of a YAML stream. Raises GitopsError."""
    try:
        found = [item for item in load(text) if item is not None]
    except ValueError as error:
        raise GitopsError(f"not YAML: {error}", where=where) from error
    for item in found:
        named = isinstance(item, dict) and isinstance(item.get("kind"), str)
        if not named or not isinstance(get(item, "metadata", "name"), str):
            raise GitopsError("a manifest has a kind and a name", where=where)
    return found


def get(value: Any, *path: str | int) -> Any:
    """What lies at the path, or None: a manifest may lack anything."""
    for step in path:
        if isinstance(value, Mapping) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def items(value: Any, *path: str | int) -> list[Any]:
    """The list at the path; empty where there is none."""
    found = get(value, *path)
    return found if isinstance(found, list) else []


def title(manifest: Manifest) -> str:
    """`Kind/name`."""
    return f"{manifest.get('kind')}/{get(manifest, 'metadata', 'name')}"


def group_and_kind(manifest: Manifest) -> tuple[str, str]:
    """For instance `("apps", "StatefulSet")`; the core group is empty."""
    group, slash, _version = str(manifest.get("apiVersion")).partition("/")
    return (group if slash else "", str(manifest.get("kind")))


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """Those of these kinds."""
    return [manifest for manifest in manifests if manifest.get("kind") in kinds]


def pod_of(workload: Manifest) -> Manifest:
    """The pod's specification, empty where there is none."""
    found = get(workload, "spec", "template", "spec")
    return found if isinstance(found, dict) else {}


def containers(workload: Manifest) -> Iterator[Manifest]:
    """Every container of the pod, those that run first included."""
    for group in ("initContainers", "containers", "ephemeralContainers"):
        yield from (item for item in items(pod_of(workload), group) if isinstance(item, dict))


def selects(selector: Any, workload: Manifest) -> bool:
    """Does a label selector match the workload's pods? One that is empty or more than labels does not count."""
    wanted = get(selector, "matchLabels")
    labels = get(workload, "spec", "template", "metadata", "labels")
    if not isinstance(wanted, dict) or not wanted or not isinstance(labels, dict) or set(selector) != {"matchLabels"}:
        return False
    return wanted.items() <= labels.items()
