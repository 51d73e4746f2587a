"""A revocation is signed by a revoker, and every field of it is what it must be."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.attestations.revocation import KINDS, VerifiedRevocation, earliest, verify_revocation
from helix_lineage.errors import LineageError, RecordError, TrustError
from helix_lineage.records.chain import Revocation
from tests.helix_lineage.directory.support import Office
from tests.helix_lineage.support import NOW, digest

OFFICE = Office(Path("unused"))
TARGET = digest("release")
PREDICATE = "https://helix.example/revocation/v1"


def verify(**changes: Any) -> VerifiedRevocation:
    return verify_revocation(OFFICE.revoked("release", TARGET, **changes), OFFICE.trust(), at=NOW)


def signed(predicate: object, target: str = TARGET, subjects: int = 1) -> bytes:
    statement = OFFICE._statement(target, PREDICATE)
    return OFFICE.revoker.bundle(statement | {"subject": statement["subject"] * subjects, "predicate": predicate})


def test_a_signed_revocation_verifies() -> None:
    found = verify(index=3)
    assert (found.kind, found.target, found.since, found.index, found.reason) == ("release", TARGET, NOW, 3, "leaked")
    assert found.key_id == OFFICE.revoker.entry()["key_id"]


def test_only_a_revoker_revokes() -> None:
    swapped = Office(Path("x"), revoker=OFFICE.promoter)
    with pytest.raises(TrustError, match="no key of role 'revoker' in the trust root made the signature"):
        verify_revocation(swapped.revoked("release", TARGET), OFFICE.trust(), at=NOW)
    with pytest.raises(TrustError, match="that holds at 2046"):
        verify_revocation(OFFICE.revoked("release", TARGET), OFFICE.trust(), at=NOW + timedelta(days=7305))


FIELDS: list[tuple[str, Any, str]] = [
    ("kind", "commit", "kind is 'commit', not one of"),
    ("kind", None, "kind is None"),
    ("target", "sha256:x", "target: not a digest"),
    ("since", "yesterday", "since is 'yesterday', not a time"),
    ("since", None, "since is None, not a time"),
    ("since", "2026-01-01T00:00:00", "since has no zone"),
    ("index", -1, "index is -1"),
    ("index", True, "index is True"),
    ("index", "1", "index is '1'"),
    ("reason", " ", "no reason"),
    ("reason", 1, "no reason"),
]


@pytest.mark.parametrize(("name", "value", "words"), FIELDS)
def test_a_field_that_is_not_what_it_must_be(name: str, value: Any, words: str) -> None:
    fields = {"kind": "release", "target": TARGET, "since": "2026-01-01T00:00:00Z", "index": 0, "reason": "leaked"}
    record = Revocation(parameters=fields | {name: value})
    with pytest.raises(RecordError, match=words):
        verify_revocation(signed({"revocation": record.to_json()}), OFFICE.trust(), at=NOW)


def test_the_subject_is_the_target_and_the_only_one() -> None:
    record = Revocation(
        parameters={"kind": "key", "target": TARGET, "since": "2026-01-01T00:00:00Z", "index": 0, "reason": "x"}
    ).to_json()
    with pytest.raises(TrustError, match=r"subject is .*, but its target is"):
        verify_revocation(signed({"revocation": record}, digest("other")), OFFICE.trust(), at=NOW)
    with pytest.raises(TrustError, match="2 subjects"):
        verify_revocation(signed({"revocation": record}, subjects=2), OFFICE.trust(), at=NOW)
    with pytest.raises(TrustError, match="the predicate is"):
        verify_revocation(signed({"revocation": record, "x": 1}), OFFICE.trust(), at=NOW)
    with pytest.raises(RecordError, match=r"predicate\.revocation: a record has"):
        verify_revocation(signed({"revocation": {}}), OFFICE.trust(), at=NOW)
    release = OFFICE.chain.release.to_json()
    with pytest.raises(RecordError, match=r"predicate\.revocation is a helix\.release"):
        verify_revocation(signed({"revocation": release}), OFFICE.trust(), at=NOW)


def test_the_earliest_that_holds_counts() -> None:
    late, early = verify(since=NOW + timedelta(days=2)), verify(since=NOW + timedelta(days=1))
    assert earliest([late, early], "release", TARGET) == early
    assert earliest([late, early], "release", TARGET, NOW) is None
    assert earliest([late, early], "release", TARGET, NOW + timedelta(days=1)) == early
    assert [earliest([late, early], kind, TARGET) for kind in KINDS if kind != "release"] == [None] * 3
    assert earliest([late], "release", None) is None


@given(st.data())
def test_no_changed_byte_of_a_bundle_is_accepted_as_another_revocation(data: st.DataObject) -> None:
    bundle = bytearray(OFFICE.revoked("release", TARGET))
    at = data.draw(st.integers(0, 2**20)) % len(bundle)  # a signature has another length each time
    bundle[at] ^= data.draw(st.integers(1, 255))
    try:
        found = verify_revocation(bytes(bundle), OFFICE.trust(), at=NOW)
    except LineageError:
        return
    assert found.revocation == verify().revocation
