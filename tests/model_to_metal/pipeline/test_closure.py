from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from model_to_metal.errors import CheckoutError, ContractError
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import closure
from model_to_metal.pipeline.plan import release_plan
from model_to_metal.stages.interface import stages as all_stages
from tests.model_to_metal.project import commit, copy_repository, git, make_project

STAGE_NAMES = [name for name in all_stages() if name != "attest"]


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    return make_project(tmp_path / "project")


def digests(checkout: Checkout, model: str = "toy") -> dict[str, str]:
    """Stage → digest of its cache key, as if it had no parents."""
    plan = release_plan(checkout, model, STAGE_NAMES)
    return {name: stage.key({}).digest for name, stage in plan.stages.items()}


def changed(checkout: Checkout, name: str, text: str = "\n# changed\n") -> set[str]:
    """The stages whose key changes with that file."""
    before = digests(checkout)
    path = checkout.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + text)
    after = digests(checkout)
    return {stage for stage in before if before[stage] != after[stage]}


def test_a_readme_only_commit_changes_no_key_of_the_real_model(tmp_path: Path) -> None:
    checkout = Checkout(copy_repository(tmp_path / "clone"))
    before = digests(checkout, "proteinmpnn")
    for name in (
        "README.md",
        "models/proteinmpnn/README.md",
        "platform/src/model_to_metal/README.md",
        "lineage/FORMAT.md",
    ):
        path = checkout.root / name
        path.write_text((path.read_text() if path.exists() else "") + "\nOne more line.\n")
    commit(checkout.root, "documents only")
    assert digests(checkout, "proteinmpnn") == before


def test_a_readme_changes_no_key(project: Checkout) -> None:
    assert changed(project, "models/toy/README.md") == set()


def test_neither_caches_nor_data_that_git_ignores_change_a_key(project: Checkout) -> None:
    assert changed(project, "models/toy/data/weights/factor.txt") == set()
    assert changed(project, "models/toy/src/toy_model/__pycache__/a.pyc") == set()


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("models/toy/src/toy_model/weights.py", {"import", "guard", "build"}),
        ("models/toy/src/toy_model/export.py", {"export", "guard", "build"}),
        # Imported at the top by one, inside a function by the other.
        ("models/toy/src/toy_model/shared.py", {"import", "export", "guard", "build"}),
        ("models/toy/src/toy_model/evaluate.py", {"regress", "guard", "build"}),
        ("models/toy/src/toy_model/model.py", {"guard", "build"}),
        ("models/toy/golden/text.txt", {"regress", "guard"}),
        ("models/toy/model.toml", {"import", "export", "compile", "regress", "guard", "build"}),
        ("models/toy/environment/build.lock", {"import", "export", "compile", "regress", "guard"}),
        ("models/toy/environment/serve.lock", {"guard", "build"}),
        ("models/toy/dvc.yaml", {"data", "guard"}),
        ("platform/src/model_to_metal/stages/export.py", {"export"}),
        ("platform/src/model_to_metal/stages/compile_engine.py", {"compile"}),
        ("platform/src/model_to_metal/stages/regress.py", {"regress"}),
        ("platform/src/model_to_metal/guardrails/no_pickle.py", {"guard"}),
        ("platform/src/model_to_metal/guardrails/inference.py", {"guard"}),
        ("platform/src/model_to_metal/cli/main.py", set()),
        ("platform/src/helixserve/endpoints/open_inference.py", {"guard", "build"}),
        (
            "lineage/src/helix_lineage/formats/canonical.py",
            {"data", "import", "export", "compile", "guard", "regress", "build"},
        ),
        ("platform/src/helixserve/runners/onnxruntime_runner.py", {"guard", "regress", "build"}),
        ("requirements/host.lock", {"data"}),
        ("platform/nix/debs.lock", {"import", "export", "compile", "guard", "regress", "build"}),
    ],
)
def test_a_file_changes_the_keys_of_those_stages_that_depend_on_it(
    project: Checkout, file: str, stages: set[str]
) -> None:
    assert changed(project, file) == stages


def test_a_closure_holds_no_other_stage(project: Checkout) -> None:
    for name, module in all_stages().items():
        files = closure.closure(project, "toy", name).files
        reached = {Path(file).stem for file in files if "/stages/" in file}
        assert reached == {"__init__", "__main__", "arguments", "interface", module}


def test_a_hook_that_does_not_exist_is_refused(project: Checkout) -> None:
    with pytest.raises(ContractError, match=r"toy_model\.absent"):
        closure.closure(project, "toy", "export", ["toy_model.absent:export"])


def test_an_unlocked_environment_is_refused_with_the_command(project: Checkout) -> None:
    (project.root / "models/toy/environment/build.lock").unlink()
    with pytest.raises(ContractError) as caught:
        closure.environment(project, "toy", "build")
    assert caught.value.fix == "helix lock toy"


def test_a_stage_is_shown_what_was_hashed_and_nothing_else(project: Checkout, tmp_path: Path) -> None:
    shown = closure.closure(project, "toy", "export", ["toy_model.export:export"])
    shown.copy(project.root, tmp_path / "copy")
    copied = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert copied == set(shown.files)


def test_a_file_that_changes_under_way_is_refused(project: Checkout, tmp_path: Path) -> None:
    shown = closure.tree(project, "toy")
    (project.root / "models/toy/model.toml").write_text("changed")
    with pytest.raises(CheckoutError, match="changed during the run"):
        shown.copy(project.root, tmp_path / "copy")


def test_a_deleted_file_is_no_source(project: Checkout) -> None:
    (project.root / "models/toy/golden/text.txt").unlink()
    assert "models/toy/golden/text.txt" not in closure.tree(project, "toy").files
    git(project.root, "checkout", "--", ".")
    assert "models/toy/golden/text.txt" in closure.tree(project, "toy").files


def test_a_link_counts_as_its_target_and_is_copied_as_a_link(project: Checkout, tmp_path: Path) -> None:
    link = project.root / "models/toy/golden/link.txt"
    link.symlink_to("text.txt")
    before = closure.tree(project, "toy")
    before.copy(project.root, tmp_path / "copy")
    assert (tmp_path / "copy/models/toy/golden/link.txt").is_symlink()
    link.unlink()
    link.symlink_to("other.txt")
    assert closure.tree(project, "toy").digest != before.digest


NAMES = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}", fullmatch=True)


@given(NAMES, st.sampled_from(["import {0}", "import {0} as x", "from {0} import y", "def f():\n    import {0}"]))
def test_every_way_to_import_is_seen(name: str, form: str) -> None:
    keywords = {"as", "def", "del", "for", "if", "in", "is", "not", "or", "try", "and"}
    if keywords & set(name.split(".")):
        return
    assert name in closure.imported(form.format(name).encode(), "m")


@pytest.mark.parametrize(
    ("source", "module", "package", "found"),
    [
        ("from . import a", "p.m", False, "p.a"),
        ("from .a import b", "p.m", False, "p.a"),
        ("from .a import b", "p", True, "p.a"),
        ("from ..a import b", "p.q.m", False, "p.a"),
        ("from a import b", "m", False, "a.b"),
    ],
)
def test_relative_imports_and_modules_taken_from_packages_are_seen(
    source: str, module: str, package: bool, found: str
) -> None:
    assert found in closure.imported(source.encode(), module, is_package=package)
