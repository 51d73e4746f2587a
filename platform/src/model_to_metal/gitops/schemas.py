"""Make kubeconform's schemas: the kinds that we use, from Kubernetes' own OpenAPI document and Argo CD's CRDs.

    python -m model_to_metal.gitops.schemas SWAGGER_JSON CRD_YAML... OUT

`swagger.json` lies in the Go module `k8s.io/kubernetes` (api/openapi-spec), the CRDs in
`github.com/argoproj/argo-cd` (manifests/crds). Descriptions go, unknown fields are refused, and of
an ApplicationSet's generators only those that we use stay: another one is refused until the
schemas are made again with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from helix_lineage.formats.canonical import digest_bytes

KINDS = (
    "ConfigMap", "HorizontalPodAutoscaler", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service",
    "ServiceAccount", "StatefulSet", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
)  # fmt: skip
"""Kubernetes' own kinds that `gitops/argocd` may hold."""
GENERATORS = ("git", "list", "selector")
"""The ApplicationSet generators that it may use."""
_VERSIONS = {"HorizontalPodAutoscaler": "v2"}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_REF = "#/definitions/"


def make(swagger: bytes, crds: list[bytes]) -> dict[str, bytes]:
    """File name → schema. Pure."""
    definitions = json.loads(swagger)["definitions"]
    wanted = {_META}
    made: dict[str, Any] = {}
    for name, definition in definitions.items():
        for group in definition.get("x-kubernetes-group-version-kind", ()):
            kind = group["kind"]
            if kind in KINDS and group["version"] == _VERSIONS.get(kind, "v1") and "." + kind in name:
                made[_file(kind, group["group"], group["version"])] = {"$ref": f"_definitions.json{_REF}{name}"}
                wanted.add(name)
    for text in crds:
        for file, schema in _custom(text):
            made[file] = schema
    closed = {name: _strict(definitions[name]) for name in _closure(wanted, definitions)}
    made["_definitions.json"] = {"definitions": closed}
    sources = {"swagger.json": digest_bytes(swagger), "crds": sorted(digest_bytes(text) for text in crds)}
    made["_sources.json"] = sources
    return {file: _dump(value) for file, value in made.items()}


def _custom(text: bytes) -> Iterator[tuple[str, Any]]:
    """The schemas of a CRD."""
    for crd in yaml.safe_load_all(text):
        if not crd or crd.get("kind") != "CustomResourceDefinition":
            continue
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = _prune(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"$ref": f"_definitions.json{_REF}{_META}"}
            schema["properties"].pop("status", None)
            yield _file(spec["names"]["kind"], spec["group"], version["name"]), _strict(schema)


def _prune(schema: Any) -> Any:
    """An ApplicationSet without the generators that we do not use; they nest, and make up most of it."""
    generators = _at(schema, "properties", "spec", "properties", "generators", "items", "properties")
    for name in set(generators or ()) - set(GENERATORS):
        del generators[name]
    return schema


def _at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _strict(node: Any) -> Any:
    """Without descriptions; refusing fields that a schema does not list; int-or-string as either."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    # Below `properties` a key is a field's name, and `description` may be one.
    kept = {
        key: {name: _strict(item) for name, item in value.items()} if key == "properties" else _strict(value)
        for key, value in node.items()
        if not (key == "description" and isinstance(value, str)) and (key == "$ref" or not key.startswith("x-"))
    }
    open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if "properties" in node and not open_ended:
        kept["additionalProperties"] = False
    if node.get("format") == "int-or-string" or node.get("x-kubernetes-int-or-string"):
        kept.pop("type", None)
        kept.pop("format", None)
    return kept


def _closure(names: set[str], definitions: dict[str, Any]) -> list[str]:
    """The definitions that these need, themselves included, sorted."""
    found: set[str] = set()
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += sorted(_references(definitions[name]))
    return sorted(found)


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].removeprefix(_REF)} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_references, node.values()))
    return set().union(*map(_references, node)) if isinstance(node, list) else set()


def _file(kind: str, group: str, version: str) -> str:
    """As kubeconform asks for it."""
    return "-".join([kind.lower(), *([group.split(".", maxsplit=1)[0]] if group else []), version]) + ".json"


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def main(arguments: list[str]) -> None:
    """Write the schemas; arguments as the module's docstring says."""
    swagger, *crds, out = map(Path, arguments)
    folder = out
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in make(swagger.read_bytes(), [path.read_bytes() for path in crds]).items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1:])
