"""A server serves in an environment only what was promoted there, and never goes back in generations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from helix_lineage.attestations.trust import Trust
from helix_lineage.audit import audit
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import trace
from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.shard.reader import Log
from helixserve.errors import NotReadyError
from helixserve.integrity import readiness
from helixserve.recording.recorder import Recorder
from helixserve.settings import Settings
from tests.helixserve import support
from tests.helixserve.support import Place

NOW = datetime.now(UTC)


def load(place: Place, environment: str = "staging") -> readiness.VerifiedImage:
    return readiness.load(Settings.read(place.environment(HELIX_ENVIRONMENT=environment)), NOW)


def serve_once(place: Place, environment: str = "staging") -> str:
    """Open and close a shard; gives its id."""
    recorder = Recorder.open(place.log, load(place, environment), "x86-64-v3")
    assert recorder.failure is None
    recorder.close()
    assert recorder.shard is not None
    return recorder.shard


def test_a_promotion_for_here_makes_the_shard_promoted(place: Place) -> None:
    promotion = support.promote(place, generation=3)
    shard = Log(place.log).shard(serve_once(place))
    assert (shard.header.mode, shard.header.promotion, shard.header.generation) == ("promoted", promotion.digest, 3)
    assert shard.folder.promotion.read_bytes() == place.promotion.read_bytes()


def test_outside_any_environment_a_server_is_local(place: Place) -> None:
    assert load(place, "").promotion is None
    shard = Log(place.log).shard(serve_once(place, ""))
    assert (shard.header.mode, shard.header.promotion, shard.header.generation) == ("local", None, 0)
    assert not shard.folder.promotion.exists()


def edited(place: Place) -> None:
    support.promote(place)
    bundle = json.loads(place.promotion.read_bytes())
    payload = bundle["dsseEnvelope"]["payload"]
    bundle["dsseEnvelope"]["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    place.promotion.write_text(json.dumps(bundle))


FAULTS: dict[str, tuple[Callable[[Place], object], str]] = {
    "no promotion": (lambda _: None, "HELIX_PROMOTION"),
    "a folder": (lambda place: place.promotion.mkdir(), "HELIX_PROMOTION"),
    "no bundle": (lambda place: place.promotion.write_bytes(b"{}"), "mediaType"),
    "another environment's": (lambda place: support.promote(place, "production"), "promotion.parameters.environment"),
    "another model's": (lambda place: support.promote(place, model="other"), "promotion.parameters.model"),
    "another release's": (
        lambda place: support.promote(place, release=digest_bytes(b"x")),
        "promotion.parents.release",
    ),
    "another image's": (lambda place: support.promote(place, image=digest_bytes(b"x")), "promotion's subject"),
    "signed by the releaser": (lambda place: support.promote(place, key=place.key), "promoter"),
    "generation 0": (lambda place: support.promote(place, generation=0), "promotion.parameters.generation"),
    "edited": (edited, "signature"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_promotion_that_does_not_hold_is_named(place: Place, fault: str) -> None:
    spoil, named = FAULTS[fault]
    spoil(place)
    with pytest.raises(NotReadyError) as caught:
        load(place)
    assert named in str(caught.value)


def test_a_promotion_that_nobody_says_the_environment_of_is_refused(place: Place) -> None:
    """A manifest that forgets HELIX_ENVIRONMENT must not give an unpromoted server."""
    support.promote(place)
    with pytest.raises(NotReadyError, match="nobody says") as caught:
        load(place, "")
    assert caught.value.where == "HELIX_ENVIRONMENT"


def test_an_older_generation_than_a_shard_has_seen_is_refused_and_both_are_named(place: Place) -> None:
    newer = support.promote(place, generation=5)
    shard = serve_once(place)
    older = support.promote(place, generation=4)
    with pytest.raises(NotReadyError, match="generation regression") as caught:
        load(place)
    for named in (newer.digest, older.digest, "generation 5", "generation 4", shard):
        assert named in str(caught.value)
    support.promote(place, generation=5)
    assert load(place).promotion is not None, "the same promotion again, after a restart"
    support.promote(place, generation=6)
    assert load(place).promotion is not None


def test_another_promotion_of_the_same_generation_is_refused(place: Place) -> None:
    support.promote(place, generation=2)
    serve_once(place)
    support.promote(place, generation=2, previous=digest_bytes(b"another past"))
    with pytest.raises(NotReadyError, match="two promotions of one generation"):
        load(place)


def test_generations_are_counted_for_each_environment(place: Place) -> None:
    support.promote(place, "production", generation=9)
    shard = serve_once(place, "production")
    support.promote(place, "staging", generation=2)
    assert load(place).promotion is not None
    Log(place.log).shard(shard).folder.promotion.unlink()
    with pytest.raises(NotReadyError, match="generation regression"):
        load(place)  # a header whose copy is gone counts for every environment


def test_trace_and_audit_show_and_verify_the_promotion(place: Place) -> None:
    promotion = support.promote(place, generation=2)
    with support.serving(place, HELIX_ENVIRONMENT="staging") as server:
        answer = httpx.post(f"{server.url}/project", json={"values": [1]}).json()
    prediction = answer["predictions"][0]["prediction_id"]
    log, sources = Log(place.log), ReleaseSources(trust=Trust.load(place.trust))
    shown = trace(log, prediction, sources).to_json()["promotion"]
    assert shown == {
        "digest": promotion.digest,
        "generation": 2,
        "environment": "staging",
        "record": promotion.to_json(),
        "signed_by": support.trust(place.promoter)["keys"][0]["key_id"],
        "problem": None,
    }
    assert audit(log, sources).findings == []
    folder = log.find(prediction)[0].folder
    kept = folder.promotion.read_bytes()
    support.promote(place, generation=3)
    for spoilt in (place.promotion.read_bytes(), kept[:-40], b""):
        folder.promotion.write_bytes(spoilt)
        assert {finding.rule for finding in audit(log, sources).findings} == {"promotion"}
        assert trace(log, prediction, sources).promotion_problem is not None
    folder.promotion.unlink()
    assert {finding.rule for finding in audit(log, sources).findings} == {"promotion"}
    shutil.copy(place.release, folder.promotion)  # a release is not a promotion
    assert {finding.rule for finding in audit(log, sources).findings} == {"promotion"}


def test_a_server_in_an_environment_without_a_promotion_never_serves(place: Place) -> None:
    with support.serving(place, HELIX_ENVIRONMENT="production") as server:
        response = httpx.post(f"{server.url}/project", json={"values": [1]})
        assert response.status_code == 503
        assert "HELIX_PROMOTION" in response.json()["error"]
    assert Log(place.log).shard_ids() == []
