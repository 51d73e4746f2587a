"""`helix promote`, `helix rollback` and `helix gitops` as a user starts them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

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
        (("promote", MODEL, "--to", "staging", "--release", "gone.json"), "there is no signed release to promote"),
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


def test_a_link_in_the_place_of_a_file_or_folder_is_a_fault(world: World, helix: Helix) -> None:
    places = [world.root / "gitops/argocd" / name for name in ("environments/staging/evil", "base/extra.yaml")]
    for place in places:
        place.symlink_to(world.root / "gitops/argocd/policies")
    done = helix("gitops", "check", "--json")
    for place in places:
        place.unlink()
    assert done.returncode == main.NO
    faults = json.loads(done.stdout)["faults"]
    assert {fault["where"] for fault in faults if fault["rule"] == "no-links"} == {
        str(place.relative_to(world.root)) for place in places
    }


@pytest.mark.parametrize("arguments", [("promote",), ("rollback",), ("gitops", "check")])
def test_help_shows_examples(helix: Helix, arguments: tuple[str, ...]) -> None:
    assert f"helix {' '.join(arguments)}" in helix(*arguments, "--help").stdout.partition("Examples")[2]
