"""The components of a cluster, as data: they have an order, few rights, and secrets of their own."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from model_to_metal.cluster.components import catalogue
from model_to_metal.cluster.components.interface import ACCOUNTS, USERS, Cluster
from model_to_metal.cluster.images import SPECS
from model_to_metal.cluster.network import Addresses
from model_to_metal.cluster.node.component import ROOT, Component, dump, load, ordered

PRIVILEGED = {"containerd", "kubelet"}
"""They make other processes' namespaces and mounts: nothing less will do."""


@pytest.fixture
def components() -> list[Component]:
    images = {spec.name: f"registry/{spec.name}@sha256:{'0' * 64}" for spec in SPECS}
    return catalogue.components(Cluster("01234567", Addresses(3), images, "password"))


def test_each_component_comes_after_those_that_it_needs(components: list[Component]) -> None:
    seen: set[str] = set()
    for component in components:
        assert seen.issuperset(component.needs), component.name
        assert component.name not in seen
        seen.add(component.name)


def test_components_that_need_each_other_have_no_order() -> None:
    with pytest.raises(ValueError, match="first, second"):
        ordered([Component("first", ("true",), ("second",)), Component("second", ("true",), ("first",))])
    with pytest.raises(ValueError, match="alone"):
        ordered([Component("alone", ("true",), ("nobody",))])


def test_only_two_components_keep_all_rights(components: list[Component]) -> None:
    assert {one.name for one in components if one.capabilities is None} == PRIVILEGED
    for one in (one for one in components if one.account == ROOT and one.name not in PRIVILEGED):
        assert set(one.capabilities or ()) <= {"net_admin", "net_raw", "dac_override", "fowner"}, one.name
        assert "--no-new-privs" in one.command()


def test_every_long_running_component_that_is_not_root_has_an_account_of_its_own(components: list[Component]) -> None:
    accounts = [one.account for one in components if one.account != ROOT and not one.once]
    assert len(set(accounts)) == len(accounts)
    assert len(set(ACCOUNTS.values())) == len(ACCOUNTS)
    assert len({user.name for user in USERS.values()}) == len(USERS)


def test_no_command_line_holds_a_password(components: list[Component]) -> None:
    """Everybody on the machine reads a process's command line."""
    assert not any("password" in part for one in components for part in one.argv)


names = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=8)


@given(st.builds(
    Component,
    name=names, argv=st.lists(names, min_size=1).map(tuple), needs=st.lists(names).map(tuple),
    ready=st.none() | names, once=st.booleans(), account=st.integers(0, 70_000),
    capabilities=st.none() | st.lists(names).map(tuple), environment=st.dictionaries(names, names),
))  # fmt: skip
def test_a_component_travels_as_json(component: Component) -> None:
    assert load(dump([component])) == [component]


def test_a_controller_starts_when_its_kinds_are_served_not_when_they_were_sent(components: list[Component]) -> None:
    """Kyverno was once asked before its own kinds were there: it ended, and the start took longer than it may."""
    by_name = {one.name: one for one in components}
    sent = {one.name for one in components if one.name.endswith("-crds")}
    assert len(sent) > 2
    for name in sent:
        waits = by_name[f"{name}-served"]
        assert waits.needs == (name,)
        assert "--for=condition=Established" in waits.argv
        users = [one.name for one in components if name in one.needs]
        assert users == [waits.name]
