from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hera.workflows import DAG, Container, Parameter, Steps, WorkflowTemplate, models as argo
from hypothesis import given, strategies as st

from model_to_metal.errors import WorkflowError
from model_to_metal.workflows.walk import StageCall, order, resolve, walk


def container(name: str, *inputs: str, **more: Any) -> Container:
    return Container(
        name=name,
        image="{{workflow.parameters.image}}",
        command=["run"],
        args=[name, *(f"{role}={{{{inputs.parameters.{role}}}}}" for role in inputs)],
        inputs=[Parameter(name=role) for role in inputs],
        outputs=[Parameter(name="record", value_from=argo.ValueFrom(path="/tmp/record"))],
        **more,
    )


def template(**task: Any) -> WorkflowTemplate:
    with WorkflowTemplate(name="t", entrypoint="main", arguments=[Parameter(name="image")]) as made:
        first, second = container("first"), container("second", "of")
        with DAG(name="main"):
            a = first(name="a")
            b = second(name="b", arguments={"of": a.get_parameter("record")}, **task)
            a >> b
    return made


def ran(workflow: WorkflowTemplate, given: Mapping[str, str] | None = None) -> list[StageCall]:
    calls: list[StageCall] = []

    def run(call: StageCall) -> dict[str, str]:
        calls.append(call)
        return {"record": f"made by {call.task}"}

    walk(workflow, {"image": "i"} if given is None else given, run)
    return calls


def test_tasks_run_in_order_and_are_given_what_came_before() -> None:
    first, second = ran(template())
    assert (first.task, first.args) == ("a", ("first",))
    assert (second.task, second.args) == ("b", ("second", "of=made by a"))


def test_the_walk_gives_each_tasks_outputs() -> None:
    found = walk(template(), {"image": "i"}, lambda call: {"record": call.task})
    assert found == {"a": {"record": "a"}, "b": {"record": "b"}}


def test_a_task_that_gives_less_than_it_promised_stops_the_walk() -> None:
    with pytest.raises(WorkflowError, match="no output parameter record"):
        walk(template(), {"image": "i"}, lambda _call: {})


def test_a_missing_or_unknown_argument_is_refused_before_anything_runs() -> None:
    for arguments in ({}, {"image": "i", "model": "m"}):
        with pytest.raises(WorkflowError, match="argument"):
            walk(template(), arguments, lambda _call: pytest.fail("a container ran"))


def refused(workflow: WorkflowTemplate) -> str:
    with pytest.raises(WorkflowError) as caught:
        walk(workflow, {"image": "i"}, lambda _call: pytest.fail("a container ran"))
    return str(caught.value)


def test_what_argo_knows_and_this_walk_does_not_is_refused() -> None:
    assert "when" in refused(template(when="{{tasks.a.status}} == Succeeded"))
    assert "with_items" in refused(template(with_items=[1, 2]))
    assert "continue_on" in refused(template(continue_on=argo.ContinueOn(failed=True)))


def test_expressions_are_refused() -> None:
    with WorkflowTemplate(name="t", entrypoint="main", arguments=[Parameter(name="image")]) as made:
        one = container("one", "x")
        with DAG(name="main"):
            one(name="a", arguments={"x": "{{=1+1}}"})
    assert "{{=1+1}}" in refused(made)


def test_dependencies_other_than_and_are_refused() -> None:
    with WorkflowTemplate(name="t", entrypoint="main", arguments=[Parameter(name="image")]) as made:
        one = container("one")
        with DAG(name="main"):
            one(name="a")
            one(name="b", depends="a.Failed")
    assert "&&" in refused(made)


def test_an_entry_point_that_is_no_dag_is_refused() -> None:
    with WorkflowTemplate(name="t", entrypoint="main", arguments=[Parameter(name="image")]) as made:
        one = container("one")
        with Steps(name="main"):
            one(name="a")
    assert "not a DAG" in refused(made)


def test_a_template_that_does_more_than_its_container_is_refused() -> None:
    with WorkflowTemplate(name="t", entrypoint="main", arguments=[Parameter(name="image")]) as made:
        one = container("one", daemon=True)
        with DAG(name="main"):
            one(name="a")
    assert "daemon" in refused(made)


@given(st.dictionaries(st.sampled_from("abcdefg"), st.sets(st.sampled_from("abcdefg")), min_size=1))
def test_order_puts_each_task_after_those_it_needs_or_refuses(dependencies: dict[str, set[str]]) -> None:
    graph = {name: sorted(before) for name, before in dependencies.items()}
    try:
        found = order(graph)
    except WorkflowError:
        # Only a cycle or an unknown task is refused: what can be taken away in turn is all that is left out.
        left = dict(graph)
        while ready := [
            name for name, before in left.items() if not set(before) & set(left) and set(before) <= set(graph)
        ]:
            for name in ready:
                del left[name]
        assert left
        return
    assert sorted(found) == sorted(graph)
    for at, name in enumerate(found):
        assert set(graph[name]) <= set(found[:at])


def test_resolve_replaces_known_names_and_refuses_the_rest() -> None:
    assert resolve("a {{x}} b {{ y }}", {"x": "1", "y": "2"}) == "a 1 b 2"
    for text in ("{{z}}", "{{=x}}", "{{}}"):
        with pytest.raises(WorkflowError):
            resolve(text, {"x": "1"})
