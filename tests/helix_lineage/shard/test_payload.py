from __future__ import annotations

import pytest
import zstandard
from hypothesis import given, strategies as st

from helix_lineage.errors import ShardError
from helix_lineage.shard import payload
from helix_lineage.shard.payload import PayloadRecord, compress, parse_record

_records = st.builds(
    PayloadRecord,
    kind=st.sampled_from([payload.INPUT, payload.OUTPUT]),
    sequence=st.integers(0, 2**64 - 1),
    salt=st.binary(min_size=32, max_size=32),
    body=st.binary(max_size=50).map(compress),
    input_segment=st.integers(0, 2**32 - 1),
    input_offset=st.integers(0, 2**64 - 1),
)


@given(_records, st.binary(max_size=5))
def test_a_record_reads_back_as_itself(record: PayloadRecord, after: bytes) -> None:
    data = record.to_bytes()
    assert parse_record(data + after, 0) == (record, len(data))
    assert payload.parse_span(data) == (record.kind, record.sequence, len(data))


@given(_records, st.data())
def test_any_changed_byte_is_found(record: PayloadRecord, data: st.DataObject) -> None:
    changed = bytearray(record.to_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ShardError):
        parse_record(bytes(changed), 0)


@given(_records)
def test_a_record_that_is_cut_short_is_found(record: PayloadRecord) -> None:
    data = record.to_bytes()
    for cut in range(len(data)):
        with pytest.raises(ShardError):
            parse_record(data[:cut], 0)


@given(_records, st.booleans())
def test_erasing_keeps_the_length_and_nothing_else(record: PayloadRecord, salt: bool) -> None:
    gone = record.erased(salt=salt)
    assert len(gone.to_bytes()) == len(record.to_bytes())
    again, _ = parse_record(gone.to_bytes(), 0)
    assert again.value is None
    assert not any(again.body)
    assert again.salt == (bytes(32) if salt else record.salt)
    assert again.erased(salt=salt) == again


def test_marks_of_erasure_must_be_true() -> None:
    forged = PayloadRecord(payload.OUTPUT, 1, bytes(32), b"body", state=payload.BODY_ERASED)
    with pytest.raises(ShardError, match="marked as erased"):
        parse_record(forged.to_bytes(), 0)
    for record in (PayloadRecord(3, 1, bytes(32), b""), PayloadRecord(1, 1, bytes(32), b"", state=4)):
        with pytest.raises(ShardError, match="unknown kind"):
            parse_record(record.to_bytes(), 0)


@pytest.mark.parametrize(
    "body",
    [b"", b"no zstd", compress(b"x") + b"y", compress(b"x")[:-1], compress(b"x") * 2,
     zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)],
)  # fmt: skip
def test_a_body_is_exactly_one_zstd_frame(body: bytes) -> None:
    with pytest.raises(ShardError):
        _ = PayloadRecord(payload.OUTPUT, 1, bytes(32), body).value


def test_a_body_cannot_be_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    body = compress(bytes(1000))
    monkeypatch.setattr(payload, "MAX_BODY_BYTES", 999)
    with pytest.raises(ShardError, match="out of bounds"):
        _ = PayloadRecord(payload.OUTPUT, 1, bytes(32), body).value
    with pytest.raises(ShardError, match="at most 999"):
        compress(bytes(1000))


@given(st.binary(max_size=2000))
def test_values_survive_compression(value: bytes) -> None:
    assert PayloadRecord(payload.OUTPUT, 1, bytes(32), compress(value)).value == value


_SIZES = [0, 1, 255, 256, 511, 512, 513, 5000]


@pytest.mark.parametrize("size", _SIZES)
def test_a_value_of_any_size_is_one_frame_that_tells_its_size(size: int) -> None:
    """Small ones are raw blocks, made by hand: zstd itself must read them, and nothing must be added or missing."""
    value = bytes(at % 251 for at in range(size))
    body = compress(value)
    assert zstandard.frame_content_size(body) == size
    assert payload.decompress(body) == zstandard.ZstdDecompressor().decompress(body) == value
    assert (value in body[6:]) == (size < 512)
    for damaged in (body[:-1], body + b"\0"):
        with pytest.raises(ShardError):
            payload.decompress(damaged)


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("checksum", [False, True])
def test_a_frame_may_be_spelt_as_zstd_spells_it(size: int, checksum: bool) -> None:
    """Records of other writers, and of earlier versions, hold small values that are compressed."""
    value = bytes(at % 251 for at in range(size))
    body = zstandard.ZstdCompressor(write_checksum=checksum).compress(value)
    assert payload.decompress(body) == value


@pytest.mark.parametrize("after", [b"y", compress(b""), compress(b"x")])
def test_nothing_follows_a_frame_of_nothing(after: bytes) -> None:
    with pytest.raises(ShardError, match="exactly one"):
        payload.decompress(compress(b"") + after)


def test_a_segment_belongs_to_its_shard() -> None:
    head = payload.segment_head("ab" * 16, 7)
    assert len(head) == payload.SEGMENT_HEAD_BYTES
    assert payload.parse_segment_head(head, "ab" * 16) == 7
    with pytest.raises(ShardError, match="belongs to shard abab"):
        payload.parse_segment_head(head, "cd" * 16)
    for at in range(len(head)):
        changed = bytearray(head)
        changed[at] ^= 1
        with pytest.raises(ShardError):
            payload.parse_segment_head(bytes(changed), "ab" * 16)
    with pytest.raises(ShardError, match="cut short"):
        payload.parse_segment_head(head[:-1], "ab" * 16)


@pytest.mark.parametrize("bit", range(8))
def test_a_damaged_kind_hides_no_other_record(bit: int) -> None:
    """Only a head of zeros ends a segment: what is preallocated, and not what was damaged."""
    records = [PayloadRecord(payload.OUTPUT, at, bytes([at]) * 32, compress(b"x")).to_bytes() for at in (1, 2, 3)]
    data = bytearray(b"".join(records) + bytes(1000))
    data[len(records[0]) + 4] ^= 1 << bit
    found = [sequence for _, sequence, _, _ in payload.spans(bytes(data), 0, len(data))]
    assert found == [1, 2, 3]
