from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import ShardError
from helix_lineage.shard import entries
from helix_lineage.shard.entries import BatchPlan, Close, PredictionEntry, Recovered, Unknown, decode, dump

_u32, _u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
_id, _hash = st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)


@st.composite
def predictions(draw: st.DrawFn) -> PredictionEntry:
    count = draw(st.integers(1, 2**32 - 1))
    return PredictionEntry(
        draw(_id), draw(st.integers(0, count - 1)), count, draw(_hash), draw(_hash), draw(st.none() | _u64),
        draw(st.sampled_from(entries.LANES)), draw(st.none() | _u64), draw(st.none() | _u32), draw(_u64), draw(_u64),
    )  # fmt: skip


@st.composite
def batch_plans(draw: st.DrawFn) -> BatchPlan:
    rows = tuple(draw(st.lists(st.tuples(_id, _u32), max_size=5)))
    return BatchPlan(draw(st.integers(len(rows), 64)), rows, draw(_u64))


bodies = predictions() | batch_plans() | st.builds(Close, _u64) | st.builds(Recovered, _id, _u64, _hash, _u64, _u64)


@given(bodies)
def test_an_entry_reads_back_as_itself(entry: entries.Body) -> None:
    assert decode(entry.to_bytes()) == entry


@given(bodies, st.data())
def test_a_changed_byte_gives_another_entry_or_an_error(entry: entries.Body, data: st.DataObject) -> None:
    changed = bytearray(entry.to_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(changed))
    except ShardError:
        return
    assert other != entry
    assert other.to_bytes() == bytes(changed)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_our_error(data: bytes) -> None:
    with contextlib.suppress(ShardError):
        assert decode(data).to_bytes() == data


@given(predictions() | bodies, st.data())
def test_the_quick_look_takes_what_decode_takes(entry: entries.Body, data: st.DataObject) -> None:
    """And nothing else: an audit believes it."""
    plain = entry.to_bytes()
    changed = bytearray(plain)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(0, 255))
    for given_bytes in (plain, bytes(changed), plain + b"\0", plain[:-1]):
        try:
            found = decode(given_bytes)
        except ShardError:
            found = None
        expected = (found.input_commitment, found.output_commitment) if isinstance(found, PredictionEntry) else None
        assert entries.commitments(given_bytes) == expected
        assert entries.is_close(given_bytes) == isinstance(found, Close)


def test_the_largest_prediction_fits() -> None:
    largest = PredictionEntry(
        bytes(16),
        2**32 - 2,
        2**32 - 1,
        bytes(32),
        bytes(32),
        2**64 - 1,
        "fast",
        2**64 - 1,
        2**32 - 1,
        2**64 - 1,
        2**64 - 1,
    )
    strict = PredictionEntry(
        bytes(16), 2**32 - 2, 2**32 - 1, bytes(32), bytes(32), 2**64 - 1, "strict", None, None, 2**64 - 1, 2**64 - 1
    )
    assert len(strict.to_bytes()) <= len(largest.to_bytes()) <= entries.MAX_PREDICTION_BYTES


def test_sample_of_version_1() -> None:
    """Bytes that were written once; every later reader must still read them."""
    sample = bytes.fromhex(
        "8d0101500000000000000000000000000000002a0003"
        "58201111111111111111111111111111111111111111111111111111111111111111"
        "58202222222222222222222222222222222222222222222222222222222222222222"
        "0700f6f61a000f42401a000f4245"
    )
    assert decode(sample) == PredictionEntry(
        (42).to_bytes(16, "big"), 0, 3, b"\x11" * 32, b"\x22" * 32, 7, "strict", None, None, 1_000_000, 1_000_005
    )


@pytest.mark.parametrize("head", [[1, 5], [1, 255], [2, 1], [7, 0]])
def test_unknown_kinds_and_versions_are_kept(head: list[int]) -> None:
    data = dump([*head, "something", [1, 2]])
    assert decode(data) == Unknown(head[0], head[1], data)
    assert decode(data).to_bytes() == data


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1],
        [1, "x"],
        [-1, 1],
        [True, 1],
        "x",
        1,
        [1, 3],
        [1, 3, -1],
        [1, 3, 1.5],
        [1, 3, 2**64],
        [1, 3, 1, 1],
        [1, 1, *[0] * 11],
        [1, 2, 1, [[bytes(16), 0], [bytes(16), 1]], 0],
        [1, 2, 1, [1], 0],
        [1, 4, bytes(15), 1, bytes(32), 0, 0],
    ],
)
def test_malformed_entries_are_refused(value: Any) -> None:
    with pytest.raises(ShardError):
        decode(dump(value))


def test_two_spellings_of_one_entry_are_refused() -> None:
    data = Close(5).to_bytes()
    assert data.hex() == "83010305"
    for other in ("8301031805", "9f010305ff", "8301030500", "d9d9f783010305"):
        with pytest.raises(ShardError):
            decode(bytes.fromhex(other))


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": b"short"},
        {"index": 3},
        {"index": -1},
        {"count": 2**32},
        {"input_commitment": bytes(31)},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": True},
        {"lane": "slow"},
        {"row": 2**32},
        {"started_ns": 1.5},
    ],
)
def test_a_prediction_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "request_id": bytes(16), "index": 0, "count": 3, "input_commitment": bytes(32), "output_commitment": bytes(32),
        "seed": 0, "lane": "strict", "batch_plan": None, "row": None, "started_ns": 0, "finished_ns": 0,
    }  # fmt: skip
    with pytest.raises(ShardError):
        PredictionEntry(**(fields | changes))
    if "row" not in changes:
        with pytest.raises(ShardError):
            entries.prediction_bytes(*_outside_any_batch(fields | changes))


def _outside_any_batch(fields: dict[str, Any]) -> list[Any]:
    return [value for name, value in fields.items() if name not in ("batch_plan", "row")]


@given(predictions())
def test_the_bytes_without_the_object_are_the_object_s(entry: PredictionEntry) -> None:
    entry = replace(entry, batch_plan=None, row=None)
    assert entries.prediction_bytes(*_outside_any_batch(asdict(entry))) == entry.to_bytes()


def test_a_commitment_hides_behind_its_salt() -> None:
    salt = bytes(32)
    assert entries.commitment(salt, b"x") == hashlib.sha256(salt + hashlib.sha256(b"x").digest()).digest()
    assert entries.commitment(b"\1" * 32, b"x") != entries.commitment(salt, b"x")


def test_a_lane_is_a_number_and_no_truth_value() -> None:
    """Python takes false for 0; the entry would then have two spellings."""
    fields = [1, 1, bytes(16), 0, 1, bytes(32), bytes(32), None, 0, None, None, 0, 0]
    assert isinstance(decode(dump(fields)), PredictionEntry)
    fields[8] = False
    with pytest.raises(ShardError):
        decode(dump(fields))


def test_a_reader_that_takes_two_spellings_for_one_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a kind whose reader does not look at what it reads."""

    class Careless(Close):
        @classmethod
        def from_fields(cls, fields: Any) -> Careless:  # noqa: ARG003
            return cls(5)

    monkeypatch.setitem(entries._KINDS, Close.KIND, Careless)
    assert decode(Close(5).to_bytes()).to_bytes() == Close(5).to_bytes()
    with pytest.raises(ShardError, match="the entry of kind 3 is not in its one form"):
        decode(Close(6).to_bytes())
