"""Walks a Hera workflow on this machine: the same object that Argo runs.

Takes a WorkflowTemplate, its arguments and a function that runs one container; gives each
task's output parameters. Knows DAGs of containers and parameters; refuses the rest, so that
nothing means one thing here and another in a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_to_metal.errors import WorkflowError

_REFERENCE = re.compile(r"\{\{([^{}]*)\}\}")
_TASK_FIELDS = {"name", "template", "depends", "arguments"}
_TEMPLATE_FIELDS = {"name", "container", "inputs", "outputs"}
_POD_FIELDS = {"active_deadline_seconds", "retry_strategy", "service_account_name", "volumes"}
"""How a pod runs, and how often it is tried: no part of what the container gives."""


@dataclass(frozen=True, slots=True)
class StageCall:
    """One container to run."""

    task: str
    """The task's name in the DAG."""
    command: tuple[str, ...]
    """The container's command."""
    args: tuple[str, ...]
    """Its arguments, with every reference resolved."""
    outputs: tuple[str, ...]
    """The output parameters that it must give."""


Run = Callable[[StageCall], Mapping[str, str]]


def walk(template: Any, arguments: Mapping[str, str], run: Run) -> dict[str, Mapping[str, str]]:
    """Run every task of the entry DAG after those that it depends on; task → output parameters.

    `template` is a Hera Workflow or WorkflowTemplate. Raises WorkflowError, before the first
    container runs, for anything that is not a DAG of containers and parameters.
    """
    spec = template.build().spec
    templates = {entry.name: entry for entry in spec.templates}
    tasks = _tasks(templates, spec.entrypoint)
    ordered = order({task.name: _dependencies(task) for task in tasks})
    by_name = {task.name: task for task in tasks}
    values = {f"workflow.parameters.{name}": value for name, value in _workflow(spec, arguments).items()}
    for task in tasks:
        _check(templates.get(task.template), task)
    results: dict[str, Mapping[str, str]] = {}
    for name in ordered:
        call = _call(templates[by_name[name].template], by_name[name], values)
        given = run(call)
        if missing := sorted(set(call.outputs) - set(given)):
            raise WorkflowError(f"the task gave no output parameter {', '.join(missing)}", where=name)
        results[name] = given
        values |= {f"tasks.{name}.outputs.parameters.{key}": value for key, value in given.items()}
    return results


def order(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks such that each comes after those it depends on, in the order given otherwise.

    Raises WorkflowError for a cycle or an unknown task.
    """
    done: list[str] = []
    waiting = list(dependencies)
    while waiting:
        ready = next((name for name in waiting if all(before in done for before in dependencies[name])), None)
        if ready is None:
            raise WorkflowError(f"these tasks wait for each other or for an unknown task: {', '.join(waiting)}")
        waiting.remove(ready)
        done.append(ready)
    return done


def resolve(text: str, values: Mapping[str, str]) -> str:
    """Replace every `{{name}}` in `text`. Raises WorkflowError for an unknown name or an expression."""

    def value(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in values:
            raise WorkflowError("the local engine cannot resolve a reference", where=match[0])
        return values[name]

    return _REFERENCE.sub(value, text)


def _tasks(templates: Mapping[str, Any], entrypoint: str) -> list[Any]:
    entry = templates.get(entrypoint)
    if entry is None or entry.dag is None:
        raise WorkflowError("the entry point is not a DAG", where=str(entrypoint))
    return list(entry.dag.tasks)


def _dependencies(task: Any) -> list[str]:
    text = task.depends or ""
    names = [part.strip() for part in text.split("&&")] if text else []
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names):
        raise WorkflowError("the local engine knows dependencies joined by && only", where=f"{task.name}: {text}")
    return names


def _check(template: Any, task: Any) -> None:
    if template is None or template.container is None:
        raise WorkflowError("a task's template is a container", where=task.name)
    for thing, known in ((task, _TASK_FIELDS), (template, _TEMPLATE_FIELDS | _POD_FIELDS)):
        used = {name for name, value in thing.model_dump(exclude_none=True).items() if value not in ([], {})}
        if unknown := sorted(used - known):
            raise WorkflowError(f"the local engine does not know {', '.join(unknown)}", where=task.name)


def _workflow(spec: Any, arguments: Mapping[str, str]) -> dict[str, str]:
    declared = spec.arguments.parameters if spec.arguments else []
    values = {entry.name: arguments.get(entry.name, entry.value) for entry in declared or []}
    if absent := sorted(name for name, value in values.items() if value is None):
        raise WorkflowError(f"the workflow needs the arguments {', '.join(absent)}")
    if unknown := sorted(set(arguments) - set(values)):
        raise WorkflowError(f"the workflow has no argument {', '.join(unknown)}")
    return {name: str(value) for name, value in values.items()}


def _call(template: Any, task: Any, values: Mapping[str, str]) -> StageCall:
    given = task.arguments.parameters if task.arguments else []
    inputs = {f"inputs.parameters.{entry.name}": resolve(str(entry.value), values) for entry in given or []}
    wanted = template.inputs.parameters if template.inputs else []
    if absent := [e.name for e in wanted or [] if f"inputs.parameters.{e.name}" not in inputs]:
        raise WorkflowError(f"the task is not given {', '.join(absent)}", where=task.name)
    # As in Argo, a container sees its own inputs and the workflow's parameters, not other tasks.
    seen = inputs | {name: value for name, value in values.items() if name.startswith("workflow.")}
    outputs = template.outputs.parameters if template.outputs else []
    return StageCall(
        task=task.name,
        command=tuple(template.container.command or ()),
        args=tuple(resolve(str(arg), seen) for arg in template.container.args or ()),
        outputs=tuple(entry.name for entry in outputs or []),
    )
