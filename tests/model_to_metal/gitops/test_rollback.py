from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helix_lineage.attestations.promotion import check_succession
from model_to_metal.errors import GitopsError, PromotionRefused
from model_to_metal.gitops import layout, overlay
from model_to_metal.gitops.promote import promote
from model_to_metal.gitops.rollback import rollback
from tests.model_to_metal import promotion_world
from tests.model_to_metal.project import git
from tests.model_to_metal.promotion_world import MODEL, World


@pytest.fixture(scope="module")
def shared(promotable: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Staging ran release a, and runs release b."""
    world = promotion_world.copy(promotable, tmp_path_factory.mktemp("rollback"))
    for name in ("a", "b"):
        world.merge(promote(world.context(), world.bundles[name], MODEL, "staging"))
    return world


@pytest.fixture
def world(shared: World, tmp_path: Path) -> World:
    return promotion_world.copy(shared, tmp_path)


def test_what_ran_before_runs_again_and_the_bad_release_is_denied(world: World) -> None:
    bad, good = (overlay.claimed_release(world.bundles[name]) for name in ("b", "a"))
    present = overlay.claimed_promotion(world.context().folder("staging", MODEL)[layout.PROMOTION])
    before, main = world.tree(), git(world.root, "rev-parse", "main")
    done = rollback(world.context(), MODEL, "staging", reason="p99\ndoubled")
    assert world.tree() == before
    assert done.branch == f"rollback/staging/tiny/{bad.digest[7:19]}"
    assert git(world.root, "rev-list", f"main..{done.branch}").split() == [done.commit]
    # No old promotion shown again, which would be a replay, but a new one for the old release.
    check_succession(done.promotion, present)
    assert done.promotion.parameters["generation"] == 3
    assert done.promotion.parents["release"] == good.digest
    changed = git(world.root, "diff", "--name-only", "main", done.commit).split()
    place = layout.folder("staging", MODEL)
    assert changed == [
        *(f"{place}/{name}" for name in (layout.KUSTOMIZATION, layout.PROMOTION, layout.RELEASE)), layout.DENIED,
    ]  # fmt: skip
    message = git(world.root, "show", "-s", "--format=%B", done.commit)
    assert f"This reverts what commit {main} made staging run.\nReason: p99 doubled\n" in message
    # But for the promotion, the model's folder is again what it was.
    files, earlier = (
        world.context().folder("staging", MODEL, done.commit),
        world.context().folder("staging", MODEL, "main^"),
    )
    assert {**files, layout.PROMOTION: b""} == {**earlier, layout.PROMOTION: b""}
    denied = json.loads(git(world.root, "show", f"{done.commit}:{layout.DENIED}"))["denied"]
    assert denied == [
        {
            "model": MODEL, "release": bad.digest, "image": bad.parameters["image"], "environment": "staging",
            "reason": "p99\ndoubled",
        }
    ]  # fmt: skip
    again = rollback(world.context(sign=_never), MODEL, "staging", reason="p99\ndoubled")
    assert again == replace(done, changed=False)


def test_promote_does_not_bring_it_back(world: World) -> None:
    world.merge(rollback(world.context(), MODEL, "staging", reason="worse"))
    for name in ("b", "b2"):
        with pytest.raises(PromotionRefused, match=r"denied: it was rolled back in staging \(worse\)"):
            promote(world.context(), world.bundles[name], MODEL, "staging")
    assert promote(world.context(), world.bundles["a"], MODEL, "staging").branch is None


def test_there_must_be_something_earlier_that_may_run(world: World) -> None:
    world.merge(rollback(world.context(), MODEL, "staging", reason="worse"))
    with pytest.raises(PromotionRefused, match="never run another release of tiny that may still run"):
        rollback(world.context(), MODEL, "staging", reason="worse still")
    assert git(world.root, "branch", "--list", "rollback/*").count("\n") == 0


def test_a_release_that_no_longer_verifies_is_not_rolled_back_to(world: World) -> None:
    world.allow("staging", "github")
    with pytest.raises(PromotionRefused, match="does not take releases of the builder 'laptop'"):
        rollback(world.context(), MODEL, "staging", reason="worse")


def test_what_does_not_run_is_not_rolled_back(world: World) -> None:
    with pytest.raises(GitopsError, match="production does not run tiny"):
        rollback(world.context(), MODEL, "production", reason="worse")


def test_what_was_edited_by_hand_can_be_rolled_back_too(world: World) -> None:
    place = layout.folder("staging", MODEL)
    world.write(f"{place}/{layout.KUSTOMIZATION}", "images: [floating]\n")
    world.write(f"{place}/more.yaml", "planted")
    done = rollback(world.context(), MODEL, "staging", reason="tampered")
    assert set(world.context().folder("staging", MODEL, done.commit)) == {
        layout.KUSTOMIZATION, layout.PROMOTION, layout.RELEASE,
    }  # fmt: skip
    world.write(f"{place}/{layout.RELEASE}", "{}")
    with pytest.raises(GitopsError, match="not a release bundle"):
        rollback(world.context(), MODEL, "staging", reason="tampered")


def _never(_payload: bytes) -> bytes:
    raise AssertionError("nothing is signed again")
