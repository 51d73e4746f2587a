from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.errors import CheckoutError, ContractError
from model_to_metal.host.checkout import Checkout
from tests.model_to_metal.project import commit, git, write_toy


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a folder of another name"
    write_toy(root / "models" / "toy")
    (root / "flake.nix").write_text("{}")
    git(root, "init", "--quiet", "--initial-branch", "main")
    return Checkout(root)


def test_is_found_from_any_folder_inside(checkout: Checkout) -> None:
    assert Checkout.find(checkout.root / "models/toy/src") == checkout


def test_outside_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match="not inside"):
        Checkout.find(tmp_path)


def test_before_the_first_commit_that_is_said(checkout: Checkout) -> None:
    with pytest.raises(CheckoutError, match="no commit yet") as caught:
        checkout.commit()
    assert caught.value.fix == "git commit"


def test_the_commit_is_heads(checkout: Checkout) -> None:
    assert commit(checkout.root, "first") == checkout.commit()


def test_changes_are_what_differs_from_the_commit_and_is_not_ignored(checkout: Checkout) -> None:
    (checkout.root / ".gitignore").write_text("ignored\n")
    commit(checkout.root, "first")
    assert checkout.changes() == []
    (checkout.root / "ignored").write_text("")
    assert checkout.changes() == []
    (checkout.root / "new file").write_text("")
    (checkout.root / "models/toy/README.md").unlink()
    assert sorted(checkout.changes()) == ["models/toy/README.md", "new file"]


def test_an_unknown_model_is_refused_with_those_there_are(checkout: Checkout) -> None:
    with pytest.raises(CheckoutError, match="no model is called 'boy'; there are: toy"):
        checkout.model("boy")


@pytest.mark.parametrize("name", ["../toy", "/etc", "toy/../toy"])
def test_a_model_is_a_name_and_no_path(checkout: Checkout, name: str) -> None:
    with pytest.raises(CheckoutError):
        checkout.model(name)


def test_a_contract_that_cannot_be_read_names_the_file(checkout: Checkout) -> None:
    path = checkout.root / "models/toy/model.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ContractError) as caught:
        checkout.contract("toy")
    assert caught.value.where == str(path)
