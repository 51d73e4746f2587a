from __future__ import annotations

from dataclasses import replace

import pytest

from helix_lineage.errors import CanonicalError, PredictionNotFound, ReplayError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.formats.typed import decode
from helix_lineage.replay import ReplayPlanner, plan
from helix_lineage.replay.plan import repository_of
from helix_lineage.shard.payload_reader import erase
from tests.helix_lineage.replay import support
from tests.helix_lineage.support import Signer, World, digest, request


def test_a_plan_holds_what_a_replay_needs(world: World) -> None:
    names = world.shard([request(seed=11, count=3)])
    found = plan(world.log, names[2], world.sources)
    assert (found.id, found.model, found.item) == (names[2], "m", 2)
    assert (found.image, found.filesystem) == (digest("image"), digest("files"))
    assert found.repository == "helix/m"
    assert found.machine_class == "x86-64-v4"
    assert found.entry.seed == 11
    assert found.stored_output is not None
    assert ReplayPlanner(world.log, world.sources).all(support.refuse) == names


def test_a_swapped_seed_changes_the_seed_only(world: World) -> None:
    (name,) = world.shard([request(seed=11)])
    found = plan(world.log, name, world.sources)
    other = found.with_seed(12)
    assert other.with_seed(11) == found
    changed = [a.name for a, b in zip(decode(found.input), decode(other.input), strict=True) if a != b]
    assert changed == ["seed"]
    with pytest.raises(CanonicalError):
        found.with_input(b"no typed value")


def test_a_shard_that_cannot_be_read_is_told_and_hides_no_other(world: World) -> None:
    first, second = (world.shard([request()]) for _ in range(2))
    folder = world.log.shard(first[0].partition(".")[0]).folder
    folder.journal.unlink()
    told: dict[str, str] = {}
    names = ReplayPlanner(world.log, world.sources).all(lambda shard, error: told.update({shard: str(error)}))
    assert names == second
    assert list(told) == [folder.id]
    assert "the file is missing" in told[folder.id]


def test_what_is_gone_is_named(world: World) -> None:
    names = world.shard([request(), request()])
    shard = world.log.shard(names[0].partition(".")[0])
    erase(shard.folder, 1)
    assert plan(world.log, names[0], world.sources).stored_output is None
    erase(shard.folder, 1, link=True)
    with pytest.raises(ReplayError, match="the input was erased"):
        plan(world.log, names[0], world.sources)
    with pytest.raises(PredictionNotFound):
        plan(world.log, f"{shard.id}.9", world.sources)


def test_an_erased_salt_cannot_be_replayed(world: World) -> None:
    names = world.shard([request(count=2)])
    shard = world.log.shard(names[0].partition(".")[0])
    erase(shard.folder, 1, link=True)
    with pytest.raises(ReplayError, match="erased"):
        plan(world.log, names[1], world.sources)


def test_a_release_that_does_not_verify_is_not_run(world: World) -> None:
    (name,) = world.shard([request()])
    for sources in (ReleaseSources(trust=Signer().trust()), ReleaseSources()):
        with pytest.raises(ReplayError, match="release"):
            plan(world.log, name, sources)


def test_the_fast_lane_is_not_replayed_yet(world: World) -> None:
    (name,) = world.shard([[replace(request()[0], lane="fast")]])
    with pytest.raises(ReplayError, match="lane 'fast'"):
        plan(world.log, name, world.sources)


@pytest.mark.parametrize(
    ("subject", "repository"),
    [
        ("127.0.0.1:5070/helix/m", "helix/m"),
        ("localhost/helix/m", "helix/m"),
        ("registry.example/helix/m:v1", "helix/m"),
        ("helix/m", "helix/m"),
        ("helix/m@sha256:abc", "helix/m"),
        ("m", "m"),
        ("", "model"),
    ],
)
def test_a_subject_names_its_repository(subject: str, repository: str) -> None:
    assert repository_of(subject, "model") == repository
