"""When a key may speak, and as whom: laws over all spans and moments, for releases and promotions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.attestations.promotion import verify_promotion
from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import ROLES, Trust
from helix_lineage.errors import TrustError
from tests.helix_lineage.attestations.test_promotion import promotion, released, statement
from tests.helix_lineage.support import NOW, Signer, make_chain

CHAIN = make_chain()
KEYS = [Signer(), Signer()]
STATEMENTS = {"releaser": CHAIN.statement(), "promoter": statement(promotion())}
BUNDLES = {(role, at): key.bundle(said) for role, said in STATEMENTS.items() for at, key in enumerate(KEYS)}
MOMENTS = st.integers(-1000, 1000).map(lambda minutes: NOW + timedelta(minutes=minutes))
SPANS = st.tuples(MOMENTS, MOMENTS)


def verify(role: str, key: int, trust: Trust, at: datetime) -> str:
    """The id of the key that vouched. Raises TrustError."""
    bundle = BUNDLES[role, key]
    if role == "releaser":
        return verify_release(bundle, trust, image=None, at=at).key_id
    return verify_promotion(bundle, trust, released(CHAIN), environment="staging", at=at).key_id


def entry(key: int, role: str, span: tuple[datetime, datetime]) -> dict[str, Any]:
    return KEYS[key].entry() | {"role": role, "not_before": span[0].isoformat(), "not_after": span[1].isoformat()}


def trust_of(*entries: dict[str, Any]) -> Trust:
    return Trust.parse(json.dumps({"version": 1, "keys": entries}).encode())


@pytest.mark.parametrize("role", STATEMENTS)
@given(held=st.sampled_from(ROLES), span=SPANS, at=MOMENTS)
def test_a_key_speaks_in_its_role_and_time_only(
    role: str, held: str, span: tuple[datetime, datetime], at: datetime
) -> None:
    trust = trust_of(entry(0, held, span))
    if held == role and span[0] <= at < span[1]:
        assert verify(role, 0, trust, at) == KEYS[0].entry()["key_id"]
        return
    with pytest.raises(TrustError) as told:
        verify(role, 0, trust, at)
    if held != role:
        assert f"no key of role {role!r} in the trust root made the signature: one of role {held!r} did" in str(
            told.value
        )
    else:
        spelled = f"from {span[0].isoformat()} to {span[1].isoformat()}"
        assert f"the signature is by no key of role {role!r} that holds at {at.isoformat()}" in str(told.value)
        assert spelled in str(told.value)


@pytest.mark.parametrize("role", STATEMENTS)
@given(first=SPANS, second=SPANS, signs=st.integers(0, 1), at=MOMENTS)
def test_another_key_that_holds_does_not_lend_its_time(
    role: str, first: tuple[datetime, datetime], second: tuple[datetime, datetime], signs: int, at: datetime
) -> None:
    """Rotation: of two keys of a role, each is judged by its own span."""
    spans = (first, second)
    trust = trust_of(*(entry(key, role, span) for key, span in enumerate(spans)))
    if spans[signs][0] <= at < spans[signs][1]:
        assert verify(role, signs, trust, at) == KEYS[signs].entry()["key_id"]
    else:
        with pytest.raises(TrustError, match="that holds at"):
            verify(role, signs, trust, at)


@pytest.mark.parametrize("role", STATEMENTS)
@given(spans=st.lists(SPANS, min_size=1, max_size=4), at=MOMENTS)
def test_a_key_that_was_prolonged_holds_in_every_span_that_it_was_given(
    role: str, spans: list[tuple[datetime, datetime]], at: datetime
) -> None:
    trust = trust_of(*(entry(0, role, span) for span in spans))
    if any(start <= at < end for start, end in spans):
        assert verify(role, 0, trust, at)
    else:
        with pytest.raises(TrustError, match="that holds at"):
            verify(role, 0, trust, at)


def test_the_edges_of_a_span_and_zones() -> None:
    start, end = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 2, tzinfo=UTC)
    second = timedelta(microseconds=1)
    key = {**KEYS[0].entry(), "not_before": "2026-06-01T02:00:00+02:00", "not_after": "2026-06-01T14:00:00-10:00"}
    trust = trust_of(key)
    assert verify("releaser", 0, trust, start)
    assert verify("releaser", 0, trust, end - second)
    for at in (start - second, end):
        with pytest.raises(TrustError, match="that holds at"):
            verify("releaser", 0, trust, at)


def test_a_key_that_was_taken_out_is_a_strangers() -> None:
    for role in STATEMENTS:
        with pytest.raises(TrustError, match=f"no signature is by a key of role {role!r}"):
            verify(role, 0, trust_of(entry(1, role, (NOW, NOW + timedelta(days=1)))), NOW)


def test_an_old_release_under_its_old_promotion_is_a_regression() -> None:
    """Both are whole, and were once what ran: only the newest generation that is known tells."""
    old = promotion()
    newer = promotion(previous=old.digest)
    key = Signer(role="promoter")
    for record in (old, newer):
        assert verify_promotion(
            key.bundle(statement(record)), key.trust(), released(CHAIN), environment="staging", at=NOW, newest=1
        )
    with pytest.raises(TrustError, match="generation regression: the promotion is generation 1, but 2 was seen"):
        verify_promotion(
            key.bundle(statement(old)), key.trust(), released(CHAIN), environment="staging", at=NOW, newest=2
        )
