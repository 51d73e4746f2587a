from __future__ import annotations

from hypothesis import given, strategies as st

from helix_lineage.tlog import journal

_groups = st.lists(
    st.tuples(st.lists(st.binary(max_size=6), min_size=1, max_size=3), st.binary(max_size=6)), max_size=4
)


def _write(groups: list[tuple[list[bytes], bytes]]) -> bytes:
    data = journal.MAGIC
    for entries, note in groups:
        data += b"".join(journal.frame(journal.ENTRY, entry) for entry in entries)
        data += journal.frame(journal.CHECKPOINT, note)
    return data


@given(_groups)
def test_groups_are_read_back(groups: list[tuple[list[bytes], bytes]]) -> None:
    found = journal.parse(_write(groups))
    assert found.damage is None
    assert found.entries == [entry for entries, _ in groups for entry in entries]
    assert [covered.note for covered in found.checkpoints] == [note for _, note in groups]
    assert found.covered == len(found.entries)
    assert found.tail == (0 if groups else len(journal.MAGIC))


@given(_groups.filter(bool), st.data())
def test_whatever_is_cut_off_only_whole_groups_count(
    groups: list[tuple[list[bytes], bytes]], data: st.DataObject
) -> None:
    whole = _write(groups)
    cut = data.draw(st.integers(0, len(whole)))
    found = journal.parse(whole[:cut])
    intact = 0
    while intact < len(groups) and len(_write(groups[: intact + 1])) <= cut:
        intact += 1
    assert len(found.checkpoints) == intact
    assert found.covered == sum(len(entries) for entries, _ in groups[:intact])
    assert found.intact == (len(_write(groups[:intact])) if intact else 0)
    assert found.intact + found.tail + found.preallocated == cut
    assert not any(whole[cut - found.preallocated : cut])


@given(_groups.filter(bool), st.data())
def test_a_changed_byte_ends_the_reading_before_it(
    groups: list[tuple[list[bytes], bytes]], data: st.DataObject
) -> None:
    whole = bytearray(_write(groups))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found = journal.parse(bytes(whole))
    assert found.damage is not None
    assert found.intact <= at
    assert found.entries == journal.parse(_write(groups)).entries[: len(found.entries)]


@given(st.binary(max_size=80))
def test_any_bytes_can_be_parsed(data: bytes) -> None:
    journal.parse(data)
    journal.parse(journal.MAGIC + data)


def test_a_frame_of_unknown_type_is_damage() -> None:
    found = journal.parse(journal.MAGIC + journal.frame(9, b"x"))
    assert found.damage is not None
    assert "unknown frame type 9" in found.damage
