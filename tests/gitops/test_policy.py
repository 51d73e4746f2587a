from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from model_to_metal.errors import GitopsError
from model_to_metal.gitops import layout
from model_to_metal.gitops.policy import Denial, Denied, Policy

GOOD = {"version": 1, "registry": "registry.helix.example", "builders": ["github"], "after": None}
DIGESTS = st.integers(0, 3).map(lambda number: "sha256:" + str(number) * 64)
DENIALS = st.builds(Denial, st.just("m"), DIGESTS, DIGESTS, st.sampled_from(["staging", "production"]), st.text())


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"registry": ""},
        {"registry": "Host"},
        {"registry": "host/x"},
        {"registry": "host\n"},
        {"builders": "laptop"},
        {"builders": [1]},
        {"after": 1},
        {"after": "../x"},
        {"more": 1},
    ],
)
def test_a_policy_that_is_not_clear_is_refused(changes: dict[str, Any]) -> None:
    assert Policy.parse(json.dumps(GOOD).encode(), where="x").builders == ("github",)
    with pytest.raises(GitopsError):
        Policy.parse(json.dumps(GOOD | changes).encode(), where="x")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_policy_is_refused(data: bytes) -> None:
    with pytest.raises(GitopsError):
        Policy.parse(data, where="x")
    with pytest.raises(GitopsError):
        Denied.parse(data)


@given(st.lists(DENIALS))
def test_a_deny_list_reads_back_and_does_not_depend_on_the_order(denials: list[Denial]) -> None:
    forward, backward = Denied(), Denied()
    for denial in denials:
        forward = forward.add(denial)
    for denial in reversed(denials):
        backward = backward.add(denial)
    assert Denied.parse(forward.to_bytes()) == forward
    assert forward.to_bytes() == backward.to_bytes()
    assert all(forward.find(denial.release, "sha256:x") for denial in denials)
    assert all(forward.find("sha256:x", denial.image) for denial in denials)
    assert forward.find("sha256:x", "sha256:x") is None


def test_an_entry_names_digests() -> None:
    entry = {"model": "m", "release": "latest", "image": "x", "environment": "staging", "reason": ""}
    with pytest.raises(GitopsError, match="not a digest"):
        Denied.parse(json.dumps({"version": 1, "denied": [entry]}).encode())


@given(st.text())
def test_a_name_is_refused_or_stays_in_its_folder(text: str) -> None:
    try:
        path = layout.folder("staging", text)
    except GitopsError:
        return
    assert path == f"gitops/argocd/environments/staging/{text}"
    assert not set(text) & set("./_ \n")
