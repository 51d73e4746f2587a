from __future__ import annotations

from pathlib import Path

import pytest

from helix_lineage.formats.canonical import digest_bytes, loads
from model_to_metal.errors import ContractError
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import plan
from model_to_metal.stages.interface import StageSettings, stages
from tests.model_to_metal.project import make_project


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    return make_project(tmp_path / "checkout")


def test_one_document_holds_the_plans_of_all_stages(project: Checkout) -> None:
    found = plan.release_plan(project, "toy", stages(), "c" * 40)
    document = loads(found.to_bytes())["stages"]
    assert set(document) == set(stages())
    for name, value in document.items():
        assert StageSettings.from_json(value) == found.stages[name].plan
    assert document["attest"]["parameters"]["commit"] == "c" * 40
    assert document["regress"]["machine_class"].startswith("x86-64-v")


def test_every_digest_that_a_plan_names_is_among_the_blobs(project: Checkout) -> None:
    found = plan.release_plan(project, "toy", stages(), "c" * 40)
    blobs = {digest_bytes(blob) for blob in found.blobs}
    for stage in found.stages.values():
        for name in ("source", "environment"):
            if name in stage.plan.parameters:
                assert stage.plan.parameters[name] in blobs
        assert set(dict(stage.plan.parameters.get("locks") or {}).values()) <= blobs


def test_where_the_machine_changes_no_bytes_no_class_is_named(project: Checkout) -> None:
    found = plan.release_plan(project, "toy", stages(), "c" * 40)
    assert {name for name, stage in found.stages.items() if stage.plan.machine_class} == {"regress"}


@pytest.mark.parametrize(
    ("old", "stage", "said"),
    [
        ('export = "toy_model.export:export"', "export", "[stages] export is missing"),
        ('name = "onnxruntime-cpu"', "export", "[target] name is missing"),
        ('[target]\nname = "onnxruntime-cpu"', "compile", "[target] name is missing"),
        ('model = "toy_model.model:Toy"', "guard", "[serve] model is missing"),
    ],
)
def test_what_the_contract_lacks_is_named(project: Checkout, old: str, stage: str, said: str) -> None:
    path = project.root / "models/toy/model.toml"
    path.write_text(path.read_text().replace(old, ""))
    with pytest.raises(ContractError) as caught:
        plan.release_plan(project, "toy", [stage])
    assert said in str(caught.value)
    assert caught.value.where == "models/toy/model.toml"


def test_a_target_that_nothing_is_compiled_for_is_refused(project: Checkout) -> None:
    path = project.root / "models/toy/model.toml"
    path.write_text(path.read_text().replace('"onnxruntime-cpu"', '"abacus"'))
    with pytest.raises(ContractError, match="'abacus', which no stage compiles for"):
        plan.release_plan(project, "toy", ["compile"])


def test_an_engine_names_the_kernels_sources_where_its_target_has_kernels(project: Checkout) -> None:
    kernel = project.root / "platform" / "kernels" / "product.c"
    kernel.parent.mkdir()
    kernel.write_text("int one;\n")
    path = project.root / "models/toy/model.toml"

    def digests() -> set[str]:
        before = plan.release_plan(project, "toy", ["compile"]).stages["compile"]
        kernel.write_text(kernel.read_text() + "int another;\n")
        after = plan.release_plan(project, "toy", ["compile"]).stages["compile"]
        return {str(before.plan.parameters["source"]), str(after.plan.parameters["source"])}

    assert len(digests()) == 1
    path.write_text(path.read_text().replace('"onnxruntime-cpu"', '"native-cpu"'))
    assert len(digests()) == 2
