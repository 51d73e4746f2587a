"""What the directory takes and refuses, each refusal by its own words."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from helix_lineage.attestations import promotion
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import rules
from helix_lineage.directory.entries import Advance, Registration, StatementEntry, decode
from helix_lineage.directory.rules import DirectoryState, statement_of
from helix_lineage.errors import DirectoryError, DirectoryRefusal
from tests.helix_lineage.directory.support import FakeShard, Office
from tests.helix_lineage.support import NOW, NOW_NS, Signer, digest, header, make_chain

OFFICE = Office(Path("unused"))


class Desk:
    """A book, a clock and the bundles: a directory without a disk."""

    def __init__(self, office: Office = OFFICE, *, released: bool = True, at: int = NOW_NS) -> None:
        self.office, self.at = office, at
        self.book = DirectoryState(office.trust())
        self.entries: list[tuple[bytes, bytes | None]] = []
        if released:
            self.submit(office.released())

    def take(self, body: Any, bundle: bytes | None = None) -> int:
        index = self.book.decide(body, self.at, bundle)
        if index is None:
            index = self.book.size
            entry = body.entry(self.at)
            self.entries.append((entry, bundle))
            self.book.apply(entry, bundle)
        return index

    def submit(self, bundle: bytes) -> int:
        return self.take(statement_of(bundle), bundle)


def refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(DirectoryRefusal, match=words):
        act()


def test_a_shard_lives_from_registration_to_close() -> None:
    desk, shard = Desk(), OFFICE.shard()
    assert desk.take(shard.registration()) == 1
    assert desk.take(shard.grow(4).advance(1)) == 2
    assert desk.take(shard.end(5)) == 3
    known = desk.book.shards[shard.id]
    assert (known.size, known.closed, known.index, [seen[2] for seen in known.seen]) == (6, True, 1, [1, 5, 6])
    assert not known.withdrawn
    unused = OFFICE.shard(51)
    desk.take(unused.registration())
    assert not desk.book.shards[unused.id].withdrawn
    desk.take(unused.end(1))
    assert desk.book.shards[unused.id].withdrawn


def test_what_is_sent_again_is_answered_with_the_same_entry() -> None:
    desk, shard = Desk(), OFFICE.shard()
    assert desk.submit(OFFICE.released()) == 0  # another signature of the same release
    assert [desk.take(shard.registration()) for _ in range(2)] == [1, 1]
    newer = shard.grow(3).advance(1)
    assert desk.take(newer) == 2
    assert desk.take(replace(newer, consistency=())) == 2  # it begins where the last one ended
    ending = shard.end(4)
    assert desk.take(ending) == 3
    assert desk.take(replace(ending, consistency=())) == 3
    assert desk.book.size == 4


def spoilt_header(**changes: Any) -> Registration:
    shard = OFFICE.shard()
    fields = {"public_key": shard.key.public_key().public_bytes_raw()} | changes
    entry = header(OFFICE.chain, **fields).to_bytes()
    return FakeShard(entry, shard.key, [entry]).registration()


def test_a_header_that_does_not_make_the_id() -> None:
    one, two = OFFICE.shard(), OFFICE.shard(51)
    swapped = Registration(one.header_bytes, two.note(1))
    refused(lambda: Desk().take(swapped), f"the header makes the id {one.id}, but the checkpoint is of .*{two.id}")


def test_a_header_of_an_unknown_release() -> None:
    refused(lambda: Desk(released=False).take(OFFICE.shard().registration()), "release is unknown here")
    refused(lambda: Desk().take(spoilt_header(release=None)), "release is unknown here")


def test_a_header_that_says_other_than_its_release() -> None:
    refused(lambda: Desk().take(spoilt_header(model="x")), "the header's model is x, but the release's is m")
    refused(lambda: Desk().take(spoilt_header(image=digest("x"))), "the header's image is sha256")
    refused(lambda: Desk().take(spoilt_header(image=None)), "the header's image is None")


def test_a_registration_is_signed_by_the_header_and_covers_it_alone() -> None:
    shard = OFFICE.shard()
    other = FakeShard(shard.header_bytes, OFFICE.shard(51).key, shard.entries)
    refused(lambda: Desk().take(other.registration()), "not signed by the log's key")
    refused(lambda: Desk().take(Registration(shard.header_bytes, shard.grow().note())), "not that of the header alone")
    refused(lambda: Desk().take(Registration(shard.header_bytes, shard.note(1, bytes(32)))), "not that of the header")
    refused(lambda: Desk().take(Registration(b"\x80", shard.note(1))), "the header makes the id")
    refused(lambda: Desk().take(Registration(shard.header_bytes, b"no note")), "a checkpoint is")


def test_checkpoints_only_grow_and_are_proven() -> None:
    desk, shard = Desk(), OFFICE.shard()
    refused(lambda: desk.take(shard.grow(1).advance(1)), "not registered")
    desk.take(shard.registration())
    desk.take(shard.grow(6).advance(1))
    smaller = Advance(shard.id, shard.note(3), ())
    refused(lambda: desk.take(smaller), "has 3 entries, but 8 were taken")
    newer = shard.grow(3).advance(8)
    refused(lambda: desk.take(replace(newer, consistency=newer.consistency[:-1])), "proof from 8 to 11 .* not hold")
    refused(lambda: desk.take(replace(newer, consistency=shard.consistency(7))), "proof from 8 to 11 .* not hold")
    refused(lambda: desk.take(replace(newer, note=shard.note(11, bytes(32)))), "proof from 8 to 11 .* not hold")
    fork = replace(newer, note=shard.note(8, bytes(32)), consistency=())
    refused(lambda: desk.take(fork), "proof from 8 to 8 .* not hold")
    stranger = FakeShard(shard.header_bytes, OFFICE.shard(51).key, shard.entries)
    refused(lambda: desk.take(replace(newer, note=stranger.note())), "not signed by the log's key")
    other = OFFICE.shard(51)
    desk.take(other.registration())
    refused(lambda: desk.take(replace(newer, shard=other.id)), "the checkpoint is of another log")
    assert desk.take(newer) == 4


def test_a_close_is_the_last_entry_and_nothing_follows() -> None:
    desk, shard = Desk(), OFFICE.shard()
    desk.take(shard.registration())
    ending = shard.grow(2).end(1)
    refused(lambda: desk.take(replace(ending, close=shard.entries[1])), "not a close entry")
    refused(lambda: desk.take(replace(ending, close=b"\xff")), "not a close entry")
    refused(lambda: desk.take(replace(ending, inclusion=ending.inclusion[1:])), "not the last one")
    desk.take(ending)
    shard.grow()
    refused(lambda: desk.take(shard.advance(4)), "the shard is closed")
    refused(lambda: desk.take(shard.end(4)), "the shard is closed")


def test_a_promoted_header_names_the_newest_promotion() -> None:
    desk = Desk()
    first, first_digest = OFFICE.promoted()
    second, second_digest = OFFICE.promoted(2, previous=first_digest)
    old = {"mode": "promoted", "promotion": first_digest, "generation": 1}
    refused(lambda: desk.take(spoilt_header(**old)), "promotion is unknown")
    desk.submit(first)
    refused(lambda: desk.take(spoilt_header(**old | {"generation": 2})), "generation is 2, the promotion's 1")
    desk.take(spoilt_header(**old))
    assert desk.submit(second) == 3
    refused(lambda: desk.take(OFFICE.shard(52, **old).registration()), "is generation 1, but 2 is known")
    desk.take(spoilt_header(mode="promoted", promotion=second_digest, generation=2))


def test_a_directory_of_environments_registers_what_was_promoted_there() -> None:
    """Mode `local` has no place where a promotion is asked for."""
    desk = Desk()
    desk.book.environments = frozenset({"production"})
    refused(lambda: desk.take(OFFICE.shard().registration()), "mode local: a shard without a promotion is not")
    bundle, name = OFFICE.promoted()
    desk.submit(bundle)
    promoted = {"mode": "promoted", "promotion": name, "generation": 1}
    refused(lambda: desk.take(spoilt_header(**promoted)), "no shard of staging is registered here")
    desk.book.environments = frozenset({"production", "staging"})
    desk.take(spoilt_header(**promoted))


def test_a_promotion_of_another_release_lends_nothing() -> None:
    office = Office(Path("unused"), chain=make_chain(image=digest("other")), releaser=OFFICE.releaser,
                    promoter=OFFICE.promoter, revoker=OFFICE.revoker)  # fmt: skip
    desk = Desk()
    desk.submit(office.released())
    bundle, name = office.promoted()
    desk.submit(bundle)
    refused(
        lambda: desk.take(spoilt_header(mode="promoted", promotion=name, generation=1)),
        "promotion is of another release",
    )


def test_promotions_do_not_go_back_and_do_not_fork() -> None:
    desk = Desk()
    first, name = OFFICE.promoted()
    refused(lambda: Desk(released=False).submit(first), "the promotion's release is unknown here")
    later, later_name = OFFICE.promoted(5, previous=name)
    desk.submit(later)
    refused(lambda: desk.submit(first), "generation regression: the promotion is generation 1, but 5 is known")
    fork = OFFICE.promoted(5, previous=digest("else"))[0]
    refused(lambda: desk.submit(fork), f"generation 5 is another promotion already: {later_name}")
    assert desk.submit(OFFICE.promoted(1, environment="production")[0]) == 2


STRANGER = Signer()


@pytest.mark.parametrize("role", ["releaser", "promoter", "revoker"])
def test_a_statement_is_signed_by_its_own_role(role: str) -> None:
    """The same statement by everybody else: refused by name."""
    for other in ("releaser", "promoter", "revoker"):
        swapped = Office(Path("x"), **{role: getattr(OFFICE, other) if other != role else STRANGER})
        bundle = {
            "releaser": swapped.released, "promoter": lambda s=swapped: s.promoted()[0],
            "revoker": lambda s=swapped: s.revoked("image", digest("x")),
        }[role]()  # fmt: skip
        refused(lambda b=bundle: Desk().submit(b), f"key of role '{role}'")  # type: ignore[misc]


def test_what_is_no_statement_of_ours() -> None:
    bundle = OFFICE.released()
    refused(lambda: Desk().take(statement_of(bundle), None), "the bundle of a release is missing")
    refused(lambda: Desk().take(statement_of(bundle), bundle + b" "), "not the one that the entry names")
    foreign = OFFICE.releaser.bundle({"predicateType": "https://slsa.dev/provenance/v1"})
    refused(lambda: Desk().submit(foreign), "no release, promotion or revocation")
    refused(lambda: statement_of(b"{}"), "mediaType")
    refused(lambda: statement_of(OFFICE.releaser.bundle({})), "no statement with a predicateType")
    refused(lambda: statement_of(b" " * (rules.MAX_BUNDLE_BYTES + 1)), "more than")
    lists = OFFICE.releaser.bundle([])  # type: ignore[arg-type]
    refused(lambda: statement_of(lists), "not an object")
    text = OFFICE.releaser.bundle({"predicateType": promotion.PREDICATE_TYPE, "predicate": {}})
    refused(lambda: Desk().submit(text), "names no release")


def test_a_payload_that_is_no_json() -> None:
    value = json.loads(OFFICE.released())
    value["dsseEnvelope"]["payload"] = base64.b64encode(b"{").decode()
    refused(lambda: statement_of(json.dumps(value).encode()), "not JSON")


REVOKED = ("release", "image", "promotion", "key")


@pytest.mark.parametrize("kind", REVOKED)
def test_what_was_revoked_registers_nothing(kind: str) -> None:
    bundle, name = OFFICE.promoted()
    target = {
        "release": OFFICE.chain.release.digest, "image": str(OFFICE.chain.release.parameters["image"]),
        "promotion": name, "key": OFFICE.releaser.entry()["key_id"],
    }[kind]  # fmt: skip
    promoted = {"mode": "promoted", "promotion": name, "generation": 1}
    desk = Desk()
    desk.submit(bundle)
    desk.take(spoilt_header(**promoted))
    desk.at += 1
    desk.submit(OFFICE.revoked(kind, target, NOW))
    refused(lambda: desk.take(OFFICE.shard(53, **promoted).registration()), "was revoked as of 2026-06-01.*: leaked")
    later = Desk()
    later.submit(bundle)
    later.submit(OFFICE.revoked(kind, target, NOW + timedelta(days=1)))
    later.take(spoilt_header(**promoted))  # not yet


def test_what_a_revoked_key_signed_before_stays_good_and_nothing_after() -> None:
    desk = Desk()
    desk.at += 2 * 10**9
    desk.submit(OFFICE.revoked("key", OFFICE.releaser.entry()["key_id"], NOW + timedelta(seconds=1)))
    desk.take(OFFICE.shard().registration())  # the release was in the log before
    other = make_chain(image=digest("other"))
    refused(lambda: desk.submit(OFFICE.released(other)), "came after its key was revoked")
    desk.submit(OFFICE.promoted()[0])
    desk.submit(OFFICE.revoked("key", OFFICE.revoker.entry()["key_id"], NOW + timedelta(seconds=1)))
    refused(lambda: desk.submit(OFFICE.revoked("image", digest("x"))), "came after its key was revoked")


def test_a_revoked_release_is_not_promoted() -> None:
    desk = Desk()
    desk.submit(OFFICE.revoked("release", OFFICE.chain.release.digest))
    refused(lambda: desk.submit(OFFICE.promoted()[0]), "release was revoked")


@pytest.mark.parametrize("order", [(0, 5), (5, 0)])
def test_a_second_revocation_softens_nothing(order: tuple[int, int]) -> None:
    """There is no taking back: of several the earliest time counts, in whichever order they came."""
    desk, target = Desk(), OFFICE.chain.release.digest
    desk.at += 10**9
    for days in order:
        desk.submit(OFFICE.revoked("release", target, NOW + timedelta(days=days), reason=f"in {days} days"))
    assert len(desk.book.revocations) == 2
    found = desk.book.revoked("release", target)
    assert found is not None
    assert (found.since, found.reason) == (NOW, "in 0 days")
    refused(lambda: desk.take(OFFICE.shard().registration()), "was revoked as of 2026-06-01.*: in 0 days")


@pytest.mark.parametrize("year", [1, 9999])
def test_times_at_the_ends_of_the_calendar_can_be_compared(year: int) -> None:
    desk, target = Desk(), OFFICE.chain.release.digest
    offset = timezone(timedelta(hours=14 if year == 1 else -12))
    desk.submit(OFFICE.revoked("release", target, datetime(year, 1, 1, tzinfo=offset)))
    if year == 1:
        refused(lambda: desk.take(OFFICE.shard().registration()), "release was revoked as of 0001-01-01")
    else:
        desk.take(OFFICE.shard().registration())


def test_a_release_that_was_revoked_before_it_came_is_refused() -> None:
    desk, other = Desk(), make_chain(image=digest("other"))
    desk.submit(OFFICE.revoked("release", other.release.digest))
    refused(lambda: desk.submit(OFFICE.released(other)), "release was revoked")


def test_a_revocation_by_another_role_is_refused() -> None:
    for key in (OFFICE.releaser, OFFICE.promoter):
        said = json.loads(base64.b64decode(json.loads(OFFICE.revoked("image", digest("x")))["dsseEnvelope"]["payload"]))
        bundle = key.bundle(said)
        refused(lambda bundle=bundle: Desk().submit(bundle), "no key of role 'revoker'")


def test_a_revocation_is_not_of_a_future_of_the_log() -> None:
    desk = Desk()
    refused(lambda: desk.submit(OFFICE.revoked("image", digest("x"), index=2)), "as of entry 2, but there are 1")
    bundle = OFFICE.revoked("image", digest("x"), index=1)
    assert [desk.submit(bundle), desk.submit(bundle)] == [1, 1]
    found = desk.book.revoked("image", digest("x"))
    assert found is not None
    assert desk.book.index_of(found) == 1


def test_a_trust_root_without_a_key_voids_what_it_signed_and_breaks_nothing() -> None:
    desk, shard = Desk(), OFFICE.shard()
    desk.take(shard.registration())
    again = DirectoryState(Trust(()))
    for entry, bundle in desk.entries:
        again.apply(entry, bundle)
    assert (again.void, again.size, list(again.shards)) == ([0], 2, [shard.id])
    refused(lambda: again.decide(OFFICE.shard(51).registration(), NOW_NS), "release is unknown")


def test_entries_that_are_none() -> None:
    for data in (b"", b"\x80", b"\x83\x01\x18\x63\x05", StatementEntry("x", bytes(32)).entry(5) + b"x"):
        with pytest.raises(DirectoryError):
            decode(data)
    with pytest.raises(DirectoryError, match="more than 65535"):
        Registration(bytes(65536), b"").entry(1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_order_the_book_is_that_of_its_entries(data: st.DataObject) -> None:
    """Requests in any order, honest and spoilt: what was taken makes the same book again, and sizes only grow."""
    desk = Desk(released=data.draw(st.booleans()))
    shards = [OFFICE.shard(70), OFFICE.shard(71)]
    for _ in range(data.draw(st.integers(1, 12))):
        shard = data.draw(st.sampled_from(shards))
        known = desk.book.shards.get(shard.id)
        since = data.draw(st.sampled_from([1, known.size if known else 1]))
        shard.grow(data.draw(st.integers(0, 3)))
        act = data.draw(st.sampled_from(["register", "advance", "end", "release", "revoke"]))
        before = {name: item.size for name, item in desk.book.shards.items()}
        try:
            if act == "register":
                desk.take(shard.registration())
            elif act == "advance" and since <= len(shard.entries):
                desk.take(shard.advance(since))
            elif act == "end":
                desk.take(shard.end(since))
            elif act == "release":
                desk.submit(OFFICE.released())
            elif act == "revoke" and data.draw(st.booleans()):
                desk.submit(OFFICE.revoked("release", OFFICE.chain.release.digest))
        except DirectoryRefusal:
            pass
        desk.at += 1
        assert all(desk.book.shards[name].size >= size for name, size in before.items())
    again = DirectoryState(OFFICE.trust())
    for entry, bundle in desk.entries:
        time_ns, body = decode(entry)
        assert again.decide(body, time_ns, bundle) is None
        again.apply(entry, bundle)
    assert again.shards == desk.book.shards
    assert list(again.revocations) == list(desk.book.revocations)
