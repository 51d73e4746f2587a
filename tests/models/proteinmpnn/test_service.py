"""The service that bentofile.yaml names. The build environment, where its neighbours run too, has no BentoML."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

pytest.importorskip("bentoml")
yaml = pytest.importorskip("yaml")
service = importlib.import_module("proteinmpnn_model.service")

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"


def test_the_service_has_two_routes_a_task() -> None:
    routes = {method.route: method.name for method in service.ProteinMPNN.apis.values()}
    whole = {f"/{name}": name for name in service.CONTRACT.tasks}
    assert routes == whole | {f"/{name}/stream": f"{name}_stream" for name in service.CONTRACT.tasks}
    assert service.ProteinMPNN.name == service.CONTRACT.name


def test_bentofile_names_the_service() -> None:
    named = yaml.safe_load((MODEL / "bentofile.yaml").read_text())["service"]
    inner = service.ProteinMPNN.inner
    assert named == f"{inner.__module__}:{inner.__qualname__}"


def test_the_schema_describes_every_field_of_the_contract() -> None:
    routes = {route["name"]: route for route in service.ProteinMPNN.schema()["routes"]}
    for name, task in service.CONTRACT.tasks.items():
        given, item = routes[name]["input"], routes[name]["output"]["properties"]["predictions"]["items"]
        assert set(given["properties"]) == set(task.inputs)
        assert set(given["required"]) == {field.name for field in task.inputs.values() if field.required}
        assert set(item["properties"]) == {"prediction_id", *task.outputs}
        line = routes[f"{name}_stream"]["output"]["properties"]
        assert set(line["prediction"]["properties"]) == {"prediction_id", *task.outputs}
