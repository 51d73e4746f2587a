"""The demo's clone; the story itself is the end-to-end test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.host.checkout import Checkout
from model_to_metal.local.demo import clone_at
from tests.model_to_metal.project import commit, git, make_project


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_project(tmp_path / "checkout")


def test_the_clone_is_the_last_commit_and_leaves_the_users_branches_alone(checkout: Checkout, tmp_path: Path) -> None:
    before = git(checkout.root, "for-each-ref")
    (checkout.root / "models/toy/README.md").write_text("not committed")
    clone = clone_at(checkout, tmp_path / "demo", checkout.commit())
    assert clone.commit() == checkout.commit()
    assert clone.changes() == []
    assert (clone.root / "models/toy/README.md").read_text() == "# toy\n"
    assert git(checkout.root, "for-each-ref") == before
    assert (checkout.root / "models/toy/README.md").read_text() == "not committed"


def test_a_second_run_takes_the_newer_commit_and_drops_what_lay_about(checkout: Checkout, tmp_path: Path) -> None:
    clone = clone_at(checkout, tmp_path / "demo", checkout.commit())
    (clone.root / "litter").write_text("")
    (clone.root / "models/toy/model.toml").write_text("spoilt")
    (checkout.root / "models/toy/README.md").write_text("newer\n")
    newer = commit(checkout.root, "newer")
    again = clone_at(checkout, tmp_path / "demo", newer)
    assert again.commit() == newer
    assert again.changes() == []
    assert not (again.root / "litter").exists()


def test_a_checkout_on_no_branch_can_be_cloned(checkout: Checkout, tmp_path: Path) -> None:
    first = checkout.commit()
    commit(checkout.root, "second")
    git(checkout.root, "checkout", "--quiet", "--detach", first)
    assert clone_at(checkout, tmp_path / "demo", first).commit() == first
