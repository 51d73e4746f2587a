"""An old promotion that Git is made to show again is a generation regression, whoever asks."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helix_lineage.formats.canonical import dumps
from model_to_metal.errors import PromotionRefused
from model_to_metal.gitops import layout, overlay, succession
from model_to_metal.gitops.promote import PREDICATE_TYPE, PromotionContext, promote
from model_to_metal.gitops.rollback import rollback
from tests.helix_lineage.support import Signer
from tests.model_to_metal import promotion_world
from tests.model_to_metal.project import commit, git
from tests.model_to_metal.promotion_world import MODEL, World
from tests.model_to_metal.whole_chain import statement_of

STAGING = layout.folder("staging", MODEL)


@pytest.fixture(scope="module")
def shared(promotable: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Staging ran release a, and runs release b."""
    world = promotion_world.copy(promotable, tmp_path_factory.mktemp("succession"))
    world.allow("production", "laptop")
    for name in ("a", "b"):
        world.merge(promote(world.context(), world.bundles[name], MODEL, "staging"))
    return world


@pytest.fixture
def world(shared: World, tmp_path: Path) -> World:
    return promotion_world.copy(shared, tmp_path)


def _replayed(world: World) -> None:
    """Somebody puts the folder of generation 1 back: every byte of it was once signed and merged."""
    git(world.root, "checkout", "--quiet", "HEAD^", "--", STAGING)
    commit(world.root, "put staging back")


def _faults(world: World) -> list[str]:
    context = world.context()
    files = context.repository.files(context.base, layout.ROOT)
    return [fault.message for fault in succession.check(context.repository, context.base, files, context.trust)]


ASKED: dict[str, Callable[[PromotionContext, World], object]] = {
    "promote": lambda context, world: promote(context, world.bundles["b2"], MODEL, "staging"),
    "promote what runs": lambda context, world: promote(context, world.bundles["a"], MODEL, "staging"),
    "promote to production": lambda context, world: promote(context, world.bundles["a"], MODEL, "production"),
    "rollback": lambda context, _world: rollback(context, MODEL, "staging", reason="p99"),
}


@pytest.mark.parametrize("question", ASKED)
def test_an_old_promotion_that_was_put_back_is_named(world: World, question: str) -> None:
    _replayed(world)
    branches = git(world.root, "branch", "--list")
    with pytest.raises(
        PromotionRefused, match=r"generation regression: this is generation 1, but commit .* had 2"
    ) as told:
        ASKED[question](world.context(), world)
    assert git(world.root, "branch", "--list") == branches
    assert told.value.where == STAGING
    # The command that it names mends it.
    fix = str(told.value.fix).partition(",")[0]
    subprocess.run(shlex.split(fix), cwd=world.root, check=True)
    commit(world.root, "as it was")
    assert succession.check(world.context().repository, world.context().base, _tree(world)) == []
    assert promote(world.context(), world.bundles["b"], MODEL, "staging").promotion.parameters["generation"] == 2


def _tree(world: World) -> dict[str, bytes]:
    return world.context().repository.files(world.context().base, layout.ROOT)


def test_gitops_check_finds_it_in_the_working_tree(world: World) -> None:
    assert _faults(world) == []
    old = world.context().repository.files(git(world.root, "rev-parse", "HEAD^"), layout.ROOT)
    (fault,) = succession.check(world.context().repository, world.context().base, old)
    assert fault.message.startswith("generation regression: this is generation 1, but commit ")
    assert (fault.rule, fault.where) == ("promotion", "staging: tiny")
    (junk,) = succession.check(
        world.context().repository, world.context().base, {f"{STAGING}/{layout.PROMOTION}": b"{}"}
    )
    assert junk.message.startswith("this is not a promotion")


def test_a_model_that_vanished_does_not_begin_again(world: World) -> None:
    git(world.root, "rm", "-r", "--quiet", STAGING)
    commit(world.root, "gone")
    with pytest.raises(PromotionRefused, match=r"generation regression: nothing runs, but commit .* had 2"):
        promote(world.context(), world.bundles["a"], MODEL, "staging")


def test_two_promotions_of_one_generation_are_named(world: World) -> None:
    context = world.context()
    present = context.folder("staging", MODEL)[layout.PROMOTION]
    said = statement_of(present)
    said["predicate"]["promotion"]["parameters"]["why"] = "another promotion of the same number"
    world.write(f"{STAGING}/{layout.PROMOTION}", context.sign(dumps(said)).decode())
    assert ["there are two promotions of generation 2" in message for message in _faults(world)] == [True]
    with pytest.raises(PromotionRefused, match="there are two promotions of generation 2"):
        promote(world.context(), world.bundles["a"], MODEL, "staging")


def test_a_strangers_generation_stands_in_nobodys_way(world: World) -> None:
    place = f"{STAGING}/{layout.PROMOTION}"
    honest = world.context().folder("staging", MODEL)[layout.PROMOTION]
    said = statement_of(honest)
    said["predicate"]["promotion"]["parameters"]["generation"] = 2**53 - 1
    assert said["predicateType"] == PREDICATE_TYPE
    world.write(place, Signer(role="promoter").bundle(said).decode())
    world.write(place, honest.decode())
    assert promote(world.context(), world.bundles["a"], MODEL, "staging").promotion.parameters["generation"] == 3
    # Without a trust root nobody can tell; `helix gitops check` then errs on the safe side.
    context = world.context()
    found = succession.newest(context.repository, context.base, "staging", MODEL, None)
    assert found
    assert found.generation == 2**53 - 1


def test_what_forgets_the_history_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: then the same number is given out twice."""
    _replayed(world)
    monkeypatch.setattr(succession, "newest", lambda *_: None)
    done = promote(world.context(), world.bundles["b2"], MODEL, "staging")
    assert done.promotion.parameters["generation"] == 2
    monkeypatch.undo()
    twice = replace(world.context(), base=done.commit)
    files = twice.repository.files(done.commit, layout.ROOT)
    assert "two promotions of generation 2" in str(succession.check(twice.repository, done.commit, files))
    assert overlay.claimed_promotion(files[f"{STAGING}/{layout.PROMOTION}"]) == done.promotion
