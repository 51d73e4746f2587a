"""`helix promote`, `helix rollback` and `helix gitops` as a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helix_lineage.paths import State
from model_to_metal.cli import main
from model_to_metal.gitops import overlay
from model_to_metal.host import tools
from tests.model_to_metal import promotion_world
from tests.model_to_metal.project import git
from tests.model_to_metal.promotion_world import MODEL, World


@dataclass(frozen=True)
class Done:
    """What a command gave."""

    returncode: int
    stdout: str
    stderr: str


Helix = Callable[..., Done]


@pytest.fixture(scope="module")
def world(promotable: World, tmp_path_factory: pytest.TempPathFactory, checkout_state: State) -> World:
    for name in ("kustomize", "kubeconform"):
        tools.ensure(name, checkout_state)
    world = promotion_world.copy(promotable, tmp_path_factory.mktemp("commands"))
    # What makes the folder a checkout of Helix.
    world.write("flake.nix", "")
    world.write(f"models/{MODEL}/model.toml", "")
    (world.root.parent / "b.json").write_bytes(world.bundles["b"])
    return world


@pytest.fixture
def helix(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Helix:
    """The command line in this process: starting one takes longer than what most of these do."""
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("HELIX_STATE", str(world.state.root))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["helix", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def test_from_release_to_staging_to_production_and_back(world: World, helix: Helix) -> None:
    image = str(overlay.claimed_release(world.bundles["a"]).parameters["image"])
    first = helix("promote", MODEL, "--to", "staging", "--image", image, "--json")
    assert first.returncode == 0, first.stderr
    said = json.loads(first.stdout)
    assert (said["changed"], said["generation"], said["environment"]) == (True, 1, "staging")
    again = json.loads(helix("promote", MODEL, "--to", "staging", "--image", image, "--json").stdout)
    assert again == said | {"changed": False}
    checked = helix("promote", MODEL, "--to", "staging", "--image", image, "--check")
    assert (checked.returncode, "unchanged: promote/staging/tiny/" in checked.stdout) == (0, True)
    git(world.root, "merge", "--quiet", "--ff-only", said["branch"])
    # Rendered with the real release by the real kustomize, the whole folder holds.
    rendered = helix("gitops", "check", "--json")
    assert json.loads(rendered.stdout) == {"passed": True, "faults": []}

    refused = helix("promote", MODEL, "--to", "production")
    assert refused.returncode == main.NO
    assert "does not take releases of the builder 'laptop'" in refused.stderr
    world.allow("production", "laptop")
    done = helix("promote", MODEL, "--to", "production")
    assert done.returncode == 0, done.stderr
    assert "next: git push origin promote/production/tiny/" in done.stdout

    later = json.loads(helix("promote", MODEL, "--to", "staging", "--release", "../b.json", "--json").stdout)
    git(world.root, "merge", "--quiet", "--no-edit", later["branch"])
    back = helix("rollback", MODEL, "--in", "staging", "--because", "p99 doubled", "--json")
    assert back.returncode == 0, back.stderr
    assert (json.loads(back.stdout)["generation"], json.loads(back.stdout)["release"]) == (3, said["release"])
    git(world.root, "merge", "--quiet", "--no-edit", json.loads(back.stdout)["branch"])
    denied = helix("promote", MODEL, "--to", "staging", "--release", "../b.json")
    assert (denied.returncode, "this release is denied" in denied.stderr) == (main.NO, True)
    assert "main has it already" in helix("promote", MODEL, "--to", "staging", "--image", image).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", MODEL, "--to", "moon"), "no environment is called 'moon'"),
        (
            ("promote", MODEL, "--to", "staging", "--release", "gone.json"),
            "cannot read the release to promote: No such file",
        ),
        (("promote", MODEL, "--to", "staging", "--onto", "--all"), "this clone has no commit '--all'"),
        (("promote", MODEL, "--to", "staging", "--image", "latest"), "expected [HOST:PORT/]REPOSITORY@sha256:HEX"),
        (("promote", "../x", "--to", "staging"), "not a name"),
        (("rollback", MODEL, "--in", "production"), "production does not run tiny"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_no_traceback(
    helix: Helix, arguments: tuple[str, ...], said: str
) -> None:
    done = helix(*arguments)
    assert done.returncode == main.CANNOT
    assert said in done.stderr
    assert "fault in helix" not in done.stderr


def test_a_broken_rule_is_shown_with_its_fix_and_status_1(world: World, helix: Helix) -> None:
    path = world.root / "gitops/argocd/base/account.yaml"
    good = path.read_text()
    path.write_text(good.replace("false", "true"))
    done = helix("gitops", "check")
    path.write_text(good)
    assert done.returncode == main.NO
    assert "no-token  staging: ServiceAccount/sample-server  tokens are mounted; fix: set" in done.stdout


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 10**9)


def _submodule(path: Path) -> None:
    path.mkdir()
    git(path, "init", "--quiet")
    git(path, "commit", "--quiet", "--allow-empty", "-m", "another repository")


NO_FILES: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "a link to a folder": ("environments/staging/evil", lambda root, path: path.symlink_to(root / "gitops")),
    "a link to a file": ("base/extra.yaml", lambda root, path: path.symlink_to(root / "flake.nix")),
    "a link to what is only there": ("base/extra.yaml", lambda _, path: path.symlink_to("/nowhere/argocd/token")),
    "a huge file": ("base/extra.yaml", lambda _, path: _sparse(path)),
    "another repository": ("base/extra", lambda _, path: _submodule(path)),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_a_fault(world: World, helix: Helix, kind: str) -> None:
    name, plant = NO_FILES[kind]
    place = world.root / "gitops/argocd" / name
    plant(world.root, place)
    try:
        done = helix("gitops", "check", "--json")
    finally:
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    assert done.returncode == main.NO, done
    faults = [fault["where"] for fault in json.loads(done.stdout)["faults"] if fault["rule"] == "no-links"]
    assert [where.rstrip("/") for where in faults] == [str(place.relative_to(world.root))]


def test_a_name_that_is_no_text_is_a_fault(world: World, helix: Helix) -> None:
    path = Path(os.fsdecode(os.fsencode(world.root) + b"/gitops/argocd/base/caf\xe9.yaml"))
    path.write_bytes(b"a: 1\n")
    try:
        done, told = helix("gitops", "check", "--json"), helix("gitops", "check")
    finally:
        path.unlink()
    assert (done.returncode, told.returncode) == (main.NO, main.NO)
    assert [fault["where"] for fault in json.loads(done.stdout)["faults"]] == ["gitops/argocd/base/caf\\udce9.yaml"]
    assert "caf\\udce9.yaml" in told.stdout


def test_a_tree_that_argo_cd_could_not_start_from_is_no_answer(world: World, helix: Helix) -> None:
    path = world.root / "gitops/argocd/root.yaml"
    path.rename(path.with_suffix(".gone"))
    try:
        done = helix("gitops", "check")
    finally:
        path.with_suffix(".gone").rename(path)
    assert done.returncode == main.CANNOT
    assert "the file that Argo CD starts from is missing" in done.stderr


@pytest.mark.parametrize("arguments", [("promote",), ("rollback",), ("gitops", "check")])
def test_help_shows_examples(helix: Helix, arguments: tuple[str, ...]) -> None:
    assert f"helix {' '.join(arguments)}" in helix(*arguments, "--help").stdout.partition("Examples")[2]
