from __future__ import annotations

from typing import Any

import pytest
import yaml

from helix_lineage.formats.canonical import digest_bytes
from model_to_metal.pipeline import derivations
from model_to_metal.stages import interface
from model_to_metal.stages.arguments import parser
from model_to_metal.workflows.release import STEPS, release, rendered, write
from tests.model_to_metal.project import ROOT

RENDERED = ROOT / "gitops" / "argocd" / "workflows"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(yaml.safe_load(rendered()[1]))


def test_the_committed_yaml_is_what_the_definition_renders() -> None:
    assert (RENDERED / "release.yaml").read_text() == rendered()[1], "run: make render"


def test_writing_gives_the_same_bytes_every_time(tmp_path: Any) -> None:
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_the_name_ends_in_a_hash_of_the_content() -> None:
    name, text = rendered()
    content = digest_bytes(release().to_yaml().encode()).removeprefix("sha256:")
    assert name == f"release-{content[:12]}"
    assert f"name: {name}\n" in text
    assert release(steps=STEPS[:-1]).to_yaml() != release().to_yaml()


def test_there_are_containers_and_parameters_only(document: dict[str, Any]) -> None:
    for template in document["spec"]["templates"]:
        assert set(template) - {"name"} in ({"container", "inputs", "outputs"}, {"container", "outputs"}, {"dag"})
    assert "{{=" not in rendered()[1]


def test_every_image_is_the_workflows_parameter(document: dict[str, Any]) -> None:
    images = {t["container"]["image"] for t in document["spec"]["templates"] if "container" in t}
    assert images == {"{{workflow.parameters.image}}"}


def test_no_container_may_gain_rights(document: dict[str, Any]) -> None:
    for template in document["spec"]["templates"]:
        if "container" in template:
            context = template["container"]["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_every_stage_has_one_step_and_its_arguments_are_the_commands() -> None:
    assert sorted(step.stage for step in STEPS) == list(interface.stages())
    for template in release().build().spec.templates:
        if template.container is not None:
            arguments = parser().parse_args(template.container.args)
            assert arguments.name == template.name


def test_parents_are_those_of_the_record_that_the_stage_gives() -> None:
    for step in STEPS:
        declared = interface.spec(step.stage).record.PARENTS
        given = {role for role, _ in step.parents}
        assert given <= set(declared)
        assert {role for role, required in declared.items() if required} <= given


def test_the_derivations_of_nix_are_those_that_the_stages_declare() -> None:
    assert (ROOT / derivations.FILE).read_text() == derivations.derivations(), "run: make render"


def test_nothing_is_built_before_both_gates_and_nothing_signed_before_the_build() -> None:
    before = {step.stage: {stage for _, stage in step.parents} | set(step.after) for step in STEPS}
    assert {"guard", "regress"} <= before["build"]
    assert {"build", "guard", "regress"} <= before["attest"]
