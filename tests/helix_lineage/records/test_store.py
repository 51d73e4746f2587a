from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.errors import RecordError, StoreError
from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.records.store import RecordStore
from tests.helix_lineage.support import digest, make_chain
from tests.together import at_once


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "store")


@given(data=st.binary(max_size=100))
def test_what_was_put_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = RecordStore(tmp_path_factory.getbasetemp() / "shared")
    digest = store.put_bytes(data)
    assert digest == digest_bytes(data)
    assert store.has(digest)
    assert store.read_bytes(digest) == data
    assert store.path(digest).read_bytes() == data


def test_a_file_is_copied_so_that_later_edits_do_not_reach_the_store(store: RecordStore, tmp_path: Path) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(b"w" * 3_000_000)
    artifact = store.put_file(source, "out/weights.bin")
    source.write_bytes(b"edited")
    assert (artifact.name, artifact.size) == ("out/weights.bin", 3_000_000)
    assert store.read_bytes(artifact.digest) == b"w" * 3_000_000
    assert store.path(artifact.digest).stat().st_mode & 0o777 == 0o444
    assert list((store.root / "tmp").iterdir()) == []


def test_records_come_back_typed(store: RecordStore) -> None:
    record = make_chain().parts["weights"]
    assert store.get_record(store.put_record(record)) == record
    with pytest.raises(RecordError):
        store.get_record(store.put_bytes(b"no record"))


def test_what_is_absent_is_an_error_that_names_it(store: RecordStore) -> None:
    assert not store.has(digest("x"))
    for ask in (store.path, store.read_bytes, store.get_record):
        with pytest.raises(StoreError, match=digest("x")):
            ask(digest("x"))
    with pytest.raises(StoreError, match="not a digest"):
        store.has("../../etc/passwd")
    with pytest.raises(StoreError, match="absent"):
        store.put_file(Path("/nonexistent/absent"), "a")


def test_a_changed_blob_is_found_when_read_and_by_fsck(store: RecordStore) -> None:
    digest = store.put_bytes(b"truth")
    assert store.fsck() == []
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"trutH")
    with pytest.raises(StoreError, match="do not match"):
        store.read_bytes(digest)
    assert len(store.fsck()) == 1
    assert digest in store.fsck()[0]


def test_observations_are_kept_in_order_and_are_no_input_to_the_digest(store: RecordStore) -> None:
    record = make_chain().parts["data"]
    before = store.put_record(record)
    store.observe(before, {"commit": "abc", "seconds": 1.5})
    store.observe(before, {"commit": "def"})
    assert store.observations(before) == [{"commit": "abc", "seconds": 1.5}, {"commit": "def"}]
    assert store.observations(digest("other")) == []
    assert store.put_record(record) == before


def test_observations_of_many_threads_do_not_tear(store: RecordStore) -> None:
    name = digest("x")

    def observe(who: int) -> None:
        for at in range(20):
            store.observe(name, {"who": who, "at": at, "pad": "p" * 500})

    at_once(*(partial(observe, who) for who in range(6)))
    seen = [(item["who"], item["at"]) for item in store.observations(name)]
    assert len(seen) == 120
    assert sorted(seen) == [(who, at) for who in range(6) for at in range(20)]


def test_a_torn_observation_is_left_out_and_does_not_swallow_the_next(store: RecordStore) -> None:
    name = digest("x")
    store.observe(name, {"at": 1})
    path = store.root / "observations" / f"{name.removeprefix('sha256:')}.jsonl"
    with path.open("ab") as file:
        file.write(b'{"at": 2, "to')
    store.observe(name, {"at": 3})
    assert [item["at"] for item in store.observations(name)] == [1, 3]
    assert len(store.fsck()) == 1


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file is in the way")
    with pytest.raises(StoreError, match="cannot write"):
        RecordStore(tmp_path / "store").put_bytes(b"x")
