"""The release workflow: the one place that knows the order of the stages.

`release()` gives a Hera WorkflowTemplate: a DAG of containers and parameters, no expressions.
The local engine walks that object; `python -m model_to_metal.workflows.release FOLDER` writes
it as YAML for Argo. Each task's output parameter `record` is the digest of its record.

Argo keeps no versions of a template, so the name ends in a hash of the content.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hera.workflows import DAG, Container, ExistingVolume, Parameter, Task, WorkflowTemplate, models as argo

from helix_lineage.formats.canonical import digest_bytes

NAME = "release"
WORK = "/helix"
DIGEST = "/tmp/record"  # noqa: S108  in a pod


@dataclass(frozen=True, slots=True)
class Step:
    """One task of the DAG."""

    stage: str
    """The stage, which is also the task's name."""
    parents: tuple[tuple[str, str], ...] = ()
    """(role, stage whose record it is)."""
    after: tuple[str, ...] = ()
    """Gates that must have passed; their records are no input."""


STEPS = (
    Step("data"),
    Step("import", parents=(("data", "data"),)),
    Step("export", parents=(("weights", "import"),)),
    Step("compile", parents=(("exported", "export"),)),
    Step("guard", parents=(("engine", "compile"),)),
    Step("regress", parents=(("candidate", "compile"), ("weights", "import"), ("data", "data")), after=("guard",)),
    Step("build", parents=(("model", "compile"),), after=("guard", "regress")),
    Step(
        "attest",
        parents=(
            ("image", "build"), ("guard", "guard"), ("data", "data"), ("weights", "import"),
            ("exported", "export"), ("engine", "compile"), ("regression", "regress"),
        ),
    ),
)  # fmt: skip


def release(name: str = NAME, steps: Sequence[Step] = STEPS) -> WorkflowTemplate:
    """The workflow, without the hash in its name."""
    with WorkflowTemplate(
        name=name,
        entrypoint=NAME,
        arguments=[
            Parameter(name="model", description="folder under models/"),
            Parameter(name="plan", description="digest of the plan: what is settled about each stage, the commit too"),
            Parameter(name="image", description="the pipeline's image, by digest"),
        ],
        volumes=[ExistingVolume(name="work", claim_name="helix-work", mount_path=WORK)],
    ) as template:
        containers = {step.stage: _container(step) for step in steps}
        with DAG(name=NAME):
            tasks: dict[str, Task] = {}
            for step in steps:
                task: Task = containers[step.stage](name=step.stage, arguments=_arguments(step, tasks))
                for before in dict.fromkeys([*(stage for _, stage in step.parents), *step.after]):
                    tasks[before] >> task
                tasks[step.stage] = task
    return template


def rendered() -> tuple[str, str]:
    """(name with its hash, YAML) as Argo gets it."""
    name = f"{NAME}-{digest_bytes(release().to_yaml().encode()).removeprefix('sha256:')[:12]}"
    header = "# Rendered from platform/src/model_to_metal/workflows/release.py; do not edit. Run: make render\n"
    return name, header + str(release(name).to_yaml())


def write(folder: Path) -> Path:
    """Write the YAML as `release.yaml` into `folder`; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.yaml"
    path.write_text(rendered()[1], encoding="utf-8")
    return path


def _container(step: Step) -> Container:
    args = [step.stage, "--model", f"{WORK}/source/models/{{{{workflow.parameters.model}}}}"]
    for role, _ in step.parents:
        args += ["--parent", f"{role}={{{{inputs.parameters.{role}}}}}"]
    args += ["--plan", "{{workflow.parameters.plan}}", "--store", f"{WORK}/store"]
    args += ["--output", "/tmp/output", "--digest", DIGEST]  # noqa: S108  in a pod
    return Container(
        name=step.stage,
        image="{{workflow.parameters.image}}",
        command=["python3.11", "-m", "model_to_metal.stages"],
        args=args,
        inputs=[Parameter(name=role) for role, _ in step.parents],
        outputs=[Parameter(name="record", value_from=argo.ValueFrom(path=DIGEST))],
        security_context=argo.SecurityContext(
            allow_privilege_escalation=False,
            run_as_non_root=True,
            capabilities=argo.Capabilities(drop=["ALL"]),
        ),
    )


def _arguments(step: Step, tasks: dict[str, Task]) -> dict[str, str]:
    return {role: tasks[stage].get_parameter("record") for role, stage in step.parents}


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "gitops/argocd/workflows")))  # noqa: T201  the output
