from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from helix_lineage.formats.canonical import digest_bytes
from model_to_metal.pipeline import derivations
from model_to_metal.stages import interface
from model_to_metal.workflows.command import COMMAND, parser
from model_to_metal.workflows.release import ACCOUNT, SIGNER, SIGNING_SECRET, STEPS, release, rendered, write
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


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [template for template in document["spec"]["templates"] if "container" in template]


def test_what_decides_what_a_step_gives_is_a_container_and_parameters(document: dict[str, Any]) -> None:
    pod = {"activeDeadlineSeconds", "retryStrategy", "serviceAccountName", "volumes"}
    for template in document["spec"]["templates"]:
        assert set(template) - {"name"} - pod in (
            {"container", "inputs", "outputs"}, {"container", "outputs"}, {"dag"},
        )  # fmt: skip
    assert "{{=" not in rendered()[1]


def test_every_image_is_the_workflows_parameter(document: dict[str, Any]) -> None:
    images = {t["container"]["image"] for t in document["spec"]["templates"] if "container" in t}
    assert images == {"{{workflow.parameters.image}}"}


def test_no_pod_has_rights_a_token_or_a_disk_of_others(document: dict[str, Any]) -> None:
    spec = document["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for template in containers(document):
        context = template["container"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        kinds = {kind for volume in [*spec["volumes"], *template["volumes"]] for kind in volume if kind != "name"}
        assert kinds == {"emptyDir", "secret"}
        assert {"requests", "limits"} <= set(template["container"]["resources"])
        assert template["activeDeadlineSeconds"] > 0


def test_the_key_is_in_the_pod_that_signs_alone_and_so_is_its_account(document: dict[str, Any]) -> None:
    holders = {t["name"] for t in containers(document) if SIGNING_SECRET in str(t["volumes"])}
    assert holders == {step.stage for step in STEPS if step.signs}
    assert holders == {name for name in interface.stages() if interface.spec(name).runs is interface.Runs.SIGNER}
    for template in containers(document):
        assert template["serviceAccountName"] == (SIGNER if template["name"] in holders else ACCOUNT)


def test_a_step_is_tried_again_where_the_cluster_failed_and_not_where_the_stage_did(document: dict[str, Any]) -> None:
    for template in containers(document):
        expression = template["retryStrategy"]["expression"]
        assert set(re.findall(r'"(\w+)"', expression)) == {"Error", "69", "137", "143"}
        assert template["retryStrategy"]["limit"] <= 3


def test_every_stage_has_one_step_and_its_arguments_are_the_commands() -> None:
    assert sorted(step.stage for step in STEPS) == list(interface.stages())
    for template in release().build().spec.templates:
        if template.container is not None:
            assert tuple(template.container.command) == COMMAND
            assert parser().parse_args(template.container.args).name == template.name


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
