"""Requests and entries: one spelling, and nothing else is read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.directory import entries
from helix_lineage.directory.entries import Advance, Ending, EntryBody, Registration, StatementEntry, decode
from helix_lineage.errors import DirectoryError
from helix_lineage.shard.entries import dump
from tests.helix_lineage.directory.support import Office

SHARD = Office(Path("unused")).shard()
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=5).map(tuple)
NAMES = st.binary(min_size=16, max_size=16).map(bytes.hex)
BODIES = st.one_of(
    st.builds(Registration, st.binary(), st.binary()),
    st.builds(Advance, NAMES, st.binary(), HASHES),
    st.builds(Ending, NAMES, st.binary(), HASHES, st.binary(), HASHES),
    st.builds(StatementEntry, st.text(st.characters(codec="utf-8")), st.binary(min_size=32, max_size=32)),
)


@given(BODIES, st.integers(0, 2**64 - 1))
def test_what_is_written_is_read(body: Any, time_ns: int) -> None:
    assert decode(body.entry(time_ns)) == (time_ns, body)


def test_requests_are_read_by_their_route() -> None:
    registration = SHARD.registration()
    assert entries.decode_registration(registration.to_bytes()) == registration
    advance = SHARD.grow(3).advance(1)
    assert entries.decode_advance(advance.to_bytes()) == advance
    ending = SHARD.end(1)
    assert entries.decode_ending(ending.to_bytes()) == ending
    with pytest.raises(DirectoryError, match="other fields"):
        entries.decode_advance(ending.to_bytes())
    with pytest.raises(NotImplementedError):
        EntryBody().fields()
    with pytest.raises(NotImplementedError):
        EntryBody.of([])


MALFORMED: list[tuple[list[Any], str]] = [
    ([], "starts with"),
    ([1, 16], "starts with"),
    ([2, 16, 5, b"", b""], "starts with"),
    ([1, True, 5, b"", b""], "starts with"),
    ([1, 99, 5], "starts with"),
    ([1, 16, -5, b"", b""], "time is not"),
    ([1, 16, 5, b""], "other fields"),
    ([1, 16, 5, "h", b""], "header is not a byte string"),
    ([1, 17, 5, b"short", b"", []], "shard id"),
    ([1, 17, 5, bytes(16), 1, []], "checkpoint is not a byte string"),
    ([1, 17, 5, bytes(16), b"", 1], "at most 64 hashes"),
    ([1, 17, 5, bytes(16), b"", [bytes(31)]], "hash of the proof"),
    ([1, 17, 5, bytes(16), b"", [bytes(32)] * 65], "at most 64 hashes"),
    ([1, 19, 5, 1, bytes(32)], "predicate type is a text"),
    ([1, 19, 5, "x", bytes(31)], "bundle's digest"),
]


@pytest.mark.parametrize(("fields", "words"), MALFORMED)
def test_anything_else_is_named(fields: list[Any], words: str) -> None:
    with pytest.raises(DirectoryError, match=words):
        decode(dump(fields))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(DirectoryError):
        decode(data)


@given(BODIES, st.data())
def test_an_entry_has_one_spelling(body: Any, data: st.DataObject) -> None:
    honest = body.entry(5)
    spoilt = bytearray(honest)
    spoilt[data.draw(st.integers(0, len(honest) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        time_ns, found = decode(bytes(spoilt))
    except DirectoryError:
        return
    assert found.entry(time_ns) == bytes(spoilt)
