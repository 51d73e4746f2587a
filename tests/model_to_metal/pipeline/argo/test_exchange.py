"""Orders, files, records and cache entries through a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.records.chain import Artifact, DataCommit
from model_to_metal.errors import RegistryAway, RegistryError
from model_to_metal.pipeline.argo.exchange import ENTRIES, FILES, Exchange
from model_to_metal.pipeline.argo.order import Given, Order, StageOrder
from model_to_metal.pipeline.cache import Cache, Entry, Key
from model_to_metal.registry.client import Client
from model_to_metal.stages.interface import StageSettings
from tests.model_to_metal.project import make_cache_signer

DIGEST = "sha256:" + "1" * 64
NOW = datetime.now(UTC)
KEY = Key(stage="data", code=DIGEST, environment=DIGEST)


@pytest.fixture
def exchange(client: Client) -> Iterator[Exchange]:
    yield Exchange(client, patience_s=0)


def made(folder: Path, text: str) -> DataCommit:
    """A record and its one file."""
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text(text)
    output = Artifact("sub/file", digest_bytes(text.encode()), len(text))
    return DataCommit(parameters={"model": "toy", "dvc_lock": DIGEST, "files": []}, outputs=(output,))


def test_an_order_arrives_with_every_blob_that_it_names(exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"large")
    sources, large = digest_bytes(b"sources"), digest_bytes(b"large")
    stage = StageOrder(StageSettings(), DIGEST, DIGEST, {}, sources, {"downloads": Given(files={"a/b": large})})
    order = Order("toy", True, {"data": stage}, {}, ())
    digest = exchange.send_order(order, [b"sources", tmp_path / "large"])
    assert exchange.order(digest) == order
    exchange.save(large, tmp_path / "got/a/b")
    assert (tmp_path / "got/a/b").read_bytes() == b"large"
    assert exchange.blob(sources) == b"sources"
    with pytest.raises(RegistryError, match="was not given"):
        exchange.send_order(order, [b"sources"])


def test_a_record_arrives_with_its_files_and_twice_is_once(exchange: Exchange, tmp_path: Path) -> None:
    record = made(tmp_path / "one", "content")
    assert not exchange.has_files(record)
    for _ in range(2):
        exchange.send(record, tmp_path / "one")
    assert exchange.record(record.digest) == record
    assert exchange.has_files(record)
    exchange.fetch(record, tmp_path / "got")
    assert (tmp_path / "got/sub/file").read_text() == "content"


def test_a_file_that_changed_is_not_sent_and_neither_is_its_record(exchange: Exchange, tmp_path: Path) -> None:
    record = made(tmp_path / "two", "before")
    (tmp_path / "two/sub/file").write_text("behind")
    with pytest.raises(RegistryError, match="changed while it was sent"):
        exchange.send(record, tmp_path / "two")
    with pytest.raises(RegistryError, match="no record"):
        exchange.record(record.digest)


def test_a_cache_entry_counts_under_its_signature_and_its_key_alone(exchange: Exchange, tmp_path: Path) -> None:
    cache_signer = make_cache_signer(tmp_path / "ours", "release", since=NOW)
    accepted = cache_signer.accepted(releasing=True)
    assert exchange.find(Cache(tmp_path / "a", cache_signer), KEY, accepted, NOW).entry is None
    exchange.remember(Cache(tmp_path / "a", cache_signer), KEY, Entry(DIGEST, "2026-01-01T00:00:00Z"))
    found = exchange.find(Cache(tmp_path / "b", cache_signer), KEY, accepted, NOW)
    assert found.entry is not None
    assert found.entry.record == DIGEST
    other = make_cache_signer(tmp_path / "theirs", "release", since=NOW)
    foreign = exchange.find(Cache(tmp_path / "c", other), KEY, accepted, NOW)
    assert foreign.entry is None
    assert foreign.refusal
    # What was stored under another key's name says so itself.
    moved = Key(stage="data", code=DIGEST, environment=DIGEST, target="other")
    manifest = exchange.client.manifest(ENTRIES, f"data-{KEY.digest[7:]}")
    assert manifest is not None
    exchange.client.put_manifest(ENTRIES, manifest, tag=f"data-{moved.digest[7:]}")
    planted = exchange.find(Cache(tmp_path / "d", cache_signer), moved, accepted, NOW)
    assert planted.entry is None
    assert "another key" in str(planted.refusal)


def test_without_a_key_nothing_is_remembered(exchange: Exchange, tmp_path: Path) -> None:
    key = Key(stage="data", code=DIGEST, environment=DIGEST, target="unsigned")
    exchange.remember(Cache(tmp_path), key, Entry(DIGEST, "2026-01-01T00:00:00Z"))
    assert exchange.client.manifest(ENTRIES, f"data-{key.digest[7:]}") is None


def test_a_registry_that_is_away_is_waited_for_as_long_as_was_said() -> None:
    with Client("127.0.0.1:1") as nobody, pytest.raises(RegistryAway):
        Exchange(nobody, patience_s=0).record(DIGEST)


def test_a_blob_with_other_bytes_leaves_no_file(exchange: Exchange, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="absent"):
        exchange.save(DIGEST, tmp_path / "got" / "file", repository=FILES)
    assert list((tmp_path / "got").iterdir()) == []
