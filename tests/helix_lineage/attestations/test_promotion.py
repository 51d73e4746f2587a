from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.attestations import dsse
from helix_lineage.attestations.promotion import (
    PREDICATE_TYPE,
    VerifiedPromotion,
    check_succession,
    claimed_promotion,
    verify_promotion,
)
from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.errors import LineageError, RecordError, TrustError
from helix_lineage.records.chain import Promotion
from tests.helix_lineage.support import NOW, Chain, Signer, digest, make_chain

RELEASER, PROMOTER = Signer(), Signer(role="promoter")
CHAIN = make_chain()


def released(chain: Chain = CHAIN) -> VerifiedRelease:
    return verify_release(RELEASER.bundle(chain.statement()), RELEASER.trust(), image=None, at=NOW)


def promotion(chain: Chain = CHAIN, *, previous: str | None = None, **changes: Any) -> Promotion:
    parents = {"release": chain.release.digest} | ({"previous": previous} if previous else {})
    parameters = {"model": "m", "environment": "staging", "generation": 2 if previous else 1}
    return Promotion(parents=parents, parameters=parameters | changes)


def statement(record: Promotion, **changes: Any) -> dict[str, Any]:
    image = str(CHAIN.release.parameters["image"])
    return {
        "_type": dsse.STATEMENT_TYPE,
        "subject": [{"name": "helix/m", "digest": {"sha256": image.removeprefix("sha256:")}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"promotion": record.to_json()},
    } | changes


def verify(record: Promotion, **options: Any) -> VerifiedPromotion:
    bundle = PROMOTER.bundle(statement(record, **options.pop("changes", {})))
    asked = {"environment": "staging", "at": NOW} | options
    return verify_promotion(bundle, PROMOTER.trust(), released(), **asked)


def test_a_signed_promotion_verifies() -> None:
    found = verify(promotion())
    assert (found.promotion, found.environment, found.generation) == (promotion(), "staging", 1)
    assert found.key_id == PROMOTER.entry()["key_id"]
    later = promotion(previous=found.promotion.digest)
    assert verify(later, newest=2, environment=None).generation == 2


def test_only_a_promoter_promotes() -> None:
    bundle = RELEASER.bundle(statement(promotion()))
    with pytest.raises(TrustError, match="no key of role 'promoter'"):
        verify_promotion(bundle, RELEASER.trust(), released(), environment=None, at=NOW)
    with pytest.raises(TrustError, match="no signature is by a key of role 'promoter'"):
        verify_promotion(bundle, PROMOTER.trust(), released(), environment=None, at=NOW)
    with pytest.raises(TrustError, match="that holds at 2031"):
        verify(promotion(), at=datetime(2031, 1, 1, tzinfo=UTC))


def test_a_release_statement_is_no_promotion() -> None:
    bundle = PROMOTER.bundle(CHAIN.statement())
    with pytest.raises(TrustError, match="predicateType"):
        verify_promotion(bundle, PROMOTER.trust(), released(), environment=None, at=NOW)


def test_another_image_release_model_or_environment_is_named() -> None:
    with pytest.raises(TrustError, match="the promotion's subject is sha256:000"):
        verify(promotion(), changes={"subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]})
    with pytest.raises(TrustError, match="2 subjects"):
        verify(promotion(), changes={"subject": statement(promotion())["subject"] * 2})
    other = replace(promotion(), parents={"release": digest("other")})
    with pytest.raises(TrustError, match=r"promotion\.parents\.release is"):
        verify(other)
    with pytest.raises(TrustError, match=r"promotion\.parameters\.model is x, but the release's model is m"):
        verify(promotion(model="x"))
    with pytest.raises(TrustError, match="environment is staging, but this environment is production"):
        verify(promotion(), environment="production")


@pytest.mark.parametrize("name", ["", 1, None])
def test_an_environment_has_a_name(name: Any) -> None:
    with pytest.raises(RecordError, match=r"environment is .*, not a name"):
        verify(promotion(environment=name), environment=None)


def test_an_old_promotion_shown_again_is_a_regression() -> None:
    assert verify(promotion(), newest=1)
    with pytest.raises(TrustError, match="generation regression: the promotion is generation 1, but 2 was seen"):
        verify(promotion(), newest=2)


@pytest.mark.parametrize("generation", [0, -1, True, 1.0, "1", None, 2**53 - 1])
def test_a_generation_is_a_number_and_only_the_first_has_none_before(generation: Any) -> None:
    with pytest.raises(RecordError, match=r"generation|previous"):
        verify(promotion(generation=generation))


def test_the_first_generation_has_no_previous_one() -> None:
    with pytest.raises(RecordError, match="generation 1 has a previous promotion"):
        verify(promotion(previous=digest("before"), generation=1))


@pytest.mark.parametrize("predicate", [{}, {"promotion": 1}, {"promotion": {}}, {"promotion": {}, "x": 1}])
def test_a_malformed_predicate_is_refused(predicate: dict[str, Any]) -> None:
    with pytest.raises(LineageError, match="predicate"):
        verify(promotion(), changes={"predicate": predicate})


def test_a_promotion_that_is_a_release() -> None:
    with pytest.raises(RecordError, match=r"predicate\.promotion is a helix\.release"):
        verify(promotion(), changes={"predicate": {"promotion": CHAIN.release.to_json()}})


def test_promotions_follow_one_another() -> None:
    first = promotion()
    second = promotion(previous=first.digest)
    check_succession(first, None)
    check_succession(second, first)
    with pytest.raises(RecordError, match="generation 2, but the one before it is 0"):
        check_succession(second, None)
    with pytest.raises(RecordError, match="generation 1, but the one before it is 1"):
        check_succession(first, first)
    with pytest.raises(TrustError, match=r"parents\.previous is"):
        check_succession(promotion(previous=digest("another")), first)
    elsewhere = promotion(environment="production")
    with pytest.raises(TrustError, match=r"parameters\.environment is staging"):
        check_succession(promotion(previous=elsewhere.digest), elsewhere)


def test_what_a_bundle_claims_is_read_without_believing_it() -> None:
    stranger = Signer(role="promoter")
    assert claimed_promotion(stranger.bundle(statement(promotion()))) == promotion()
    for said in ([], {}, {"predicate": 1}, {"predicate": {}}, {"predicate": {"promotion": CHAIN.release.to_json()}}):
        with pytest.raises(LineageError, match=r"statement|predicate"):
            claimed_promotion(stranger.bundle(said))
    with pytest.raises(TrustError):
        claimed_promotion(b"{}")


BUNDLE = PROMOTER.bundle(statement(promotion()))
"""Made once: a signature has another length each time."""


@given(st.data())
def test_no_changed_byte_of_a_bundle_is_accepted_as_another_promotion(data: st.DataObject) -> None:
    bundle = bytearray(BUNDLE)
    at = data.draw(st.integers(0, len(bundle) - 1))
    bundle[at] ^= data.draw(st.integers(1, 255))
    try:
        found = verify_promotion(bytes(bundle), PROMOTER.trust(), released(), environment=None, at=NOW)
    except LineageError:
        return
    assert found.promotion == promotion()
