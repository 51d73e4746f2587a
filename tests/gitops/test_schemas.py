from __future__ import annotations

import json
from typing import Any

import pytest

from model_to_metal.gitops import schemas
from model_to_metal.gitops.render import SCHEMAS

CRD = b"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  group: argoproj.io
  names: {kind: ApplicationSet}
  versions:
  - name: v1alpha1
    schema:
      openAPIV3Schema:
        description: What it is.
        type: object
        properties:
          metadata: {type: object}
          status: {type: object}
          spec:
            type: object
            properties:
              description: {type: string, description: A field of this name.}
              port: {x-kubernetes-int-or-string: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: string}}}
              generators:
                items:
                  properties:
                    git: {type: object}
                    clusters: {type: object}
"""


def swagger() -> bytes:
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    definitions: dict[str, Any] = {
        meta: {"properties": {"name": {"type": "string"}}},
        "io.k8s.api.core.v1.ConfigMap": {
            "properties": {"metadata": {"$ref": f"#/definitions/{meta}"}, "data": {"$ref": "#/definitions/x.Data"}},
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "ConfigMap", "version": "v1"}],
        },
        "x.Data": {"additionalProperties": {"type": "string"}, "type": "object", "description": "Values."},
        "io.k8s.api.core.v1.Secret": {
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "Secret", "version": "v1"}]
        },
    }
    return json.dumps({"definitions": definitions}).encode()


def test_schemas_are_strict_small_and_whole() -> None:
    made = {name: json.loads(data) for name, data in schemas.make(swagger(), [CRD]).items()}
    assert set(made) == {
        "_definitions.json", "_sources.json", "configmap-v1.json", "applicationset-argoproj-v1alpha1.json",
    }  # fmt: skip
    definitions = made["_definitions.json"]["definitions"]
    assert definitions["x.Data"] == {"additionalProperties": {"type": "string"}, "type": "object"}
    assert definitions["io.k8s.api.core.v1.ConfigMap"]["additionalProperties"] is False
    assert "io.k8s.api.core.v1.Secret" not in definitions
    spec = made["applicationset-argoproj-v1alpha1.json"]["properties"]["spec"]["properties"]
    assert spec["description"] == {"type": "string"}
    assert spec["port"] == {}
    assert "additionalProperties" not in spec["free"]
    assert list(spec["generators"]["items"]["properties"]) == ["git"]
    assert schemas.make(swagger(), [CRD]) == schemas.make(swagger(), [CRD])


@pytest.mark.parametrize("kind", [*schemas.KINDS, "Application", "ApplicationSet", "AppProject"])
def test_each_kind_has_a_schema_whose_references_are_there(kind: str) -> None:
    found = list(SCHEMAS.glob(f"{kind.lower()}-*.json"))
    assert len(found) == 1
    definitions = json.loads((SCHEMAS / "_definitions.json").read_text())["definitions"]
    named = {text.partition('"')[0] for text in found[0].read_text().split("#/definitions/")[1:]}
    assert named <= set(definitions)
    assert sum(path.stat().st_size for path in SCHEMAS.iterdir()) < 200_000
