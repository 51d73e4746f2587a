"""The release workflow: the one place that knows the order of the stages.

`release()` gives a Hera WorkflowTemplate: a DAG of containers and parameters, no expressions.
The local engine walks that object; `python -m model_to_metal.workflows.release FOLDER` writes
it as YAML for Argo. Each task's output parameter `record` is the digest of its record.

Argo keeps no versions of a template, so the name ends in a hash of the content. A pod has no rights, no
token and no disk that others share: what a stage takes and gives travels through the registry
(`model_to_metal.pipeline.argo`). A step is tried again where the cluster failed, never where the stage did.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hera.workflows import DAG, Container, Parameter, Task, WorkflowTemplate, models as argo

from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.process import USER
from model_to_metal.workflows.command import COMMAND

NAME = "release"
WORK = "/build"
"""A pod's own folder; it goes with the pod."""
OUTPUTS = ("record", "status")
"""What a step gives: its record's digest, and whether the record was made now. Files of these names in `WORK`."""
ACCOUNT, SIGNER = "pipeline", "signer"
"""The service accounts of steps that run a researcher's code, and of the one that signs."""
CACHE_SECRET, SIGNING_SECRET = "helix-cache-key", "helix-signing-key"

_KEYS = "/var/run/helix"
_DEADLINE_S, _STEP_DEADLINE_S = 7200, 3600
_KEPT_S = 24 * 3600
# A pod that was evicted or deleted; 69: registry or disk failed; 137, 143: the process was killed from outside.
_CLUSTER_FAILED = 'lastRetry.status == "Error" || lastRetry.exitCode in ["69", "137", "143"]'


@dataclass(frozen=True, slots=True)
class Step:
    """One task of the DAG."""

    stage: str
    """The stage, which is also the task's name."""
    parents: tuple[tuple[str, str], ...] = ()
    """(role, stage whose record it is)."""
    after: tuple[str, ...] = ()
    """Gates that must have passed; their records are no input."""
    signs: bool = False
    """Whether it holds the releases' key: then no researcher's code runs in it."""


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
        signs=True,
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
            Parameter(name="registry", description="HOST:PORT of the registry, as pods reach it"),
        ],
        active_deadline_seconds=_DEADLINE_S,
        ttl_strategy=argo.TTLStrategy(seconds_after_completion=_KEPT_S),
        service_account_name=ACCOUNT,
        automount_service_account_token=False,
        executor=argo.ExecutorConfig(service_account_name=ACCOUNT),
        security_context=argo.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            seccomp_profile=argo.SeccompProfile(type="RuntimeDefault"),
        ),
        volumes=[
            argo.Volume(name="work", empty_dir=argo.EmptyDirVolumeSource(size_limit="8Gi")),
            argo.Volume(name="tmp", empty_dir=argo.EmptyDirVolumeSource(size_limit="2Gi")),
        ],
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
    args = [step.stage]
    for role, _ in step.parents:
        args += ["--parent", f"{role}={{{{inputs.parameters.{role}}}}}"]
    args += ["--plan", "{{workflow.parameters.plan}}", "--registry", "{{workflow.parameters.registry}}"]
    kind, name = ("signing-key", SIGNING_SECRET) if step.signs else ("cache-key", CACHE_SECRET)
    return Container(
        name=step.stage,
        image="{{workflow.parameters.image}}",
        command=list(COMMAND),
        args=args,
        inputs=[Parameter(name=role) for role, _ in step.parents],
        outputs=[Parameter(name=name, value_from=argo.ValueFrom(path=f"{WORK}/{name}")) for name in OUTPUTS],
        service_account_name=SIGNER if step.signs else ACCOUNT,
        active_deadline_seconds=_STEP_DEADLINE_S,
        retry_strategy=argo.RetryStrategy(
            limit=3, retry_policy="Always", expression=_CLUSTER_FAILED,
            backoff=argo.Backoff(duration="5s", factor=2, max_duration="5m"),
        ),
        resources=argo.ResourceRequirements(
            requests={"cpu": "200m", "memory": "512Mi"}, limits={"cpu": "2", "memory": "6Gi"}
        ),
        volumes=[argo.Volume(name=kind, secret=argo.SecretVolumeSource(secret_name=name, default_mode=0o440))],
        volume_mounts=[
            argo.VolumeMount(name="work", mount_path=WORK),
            argo.VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108  the pod's own
            argo.VolumeMount(name=kind, mount_path=f"{_KEYS}/{kind}", read_only=True),
        ],
        security_context=argo.SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
            capabilities=argo.Capabilities(drop=["ALL"]),
        ),
    )  # fmt: skip


def _arguments(step: Step, tasks: dict[str, Task]) -> dict[str, str]:
    return {role: tasks[stage].get_parameter("record") for role, stage in step.parents}


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "gitops/argocd/workflows")))  # noqa: T201  the output
