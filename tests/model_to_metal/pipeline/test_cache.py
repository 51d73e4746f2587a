from __future__ import annotations

import base64
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.formats.canonical import dumps, loads
from model_to_metal.pipeline.cache import CONTEXT, Cache, Entry, Key, Lookup
from model_to_metal.supply_chain.cache_keys import CacheSigner
from tests.model_to_metal.project import SINCE, make_cache_signer

NOW = SINCE + timedelta(days=1)

KEY = Key(
    stage="export",
    code="sha256:" + "1" * 64,
    environment="sha256:" + "2" * 64,
    parameters={"model": "toy"},
    parents={"weights": "sha256:" + "3" * 64},
    inputs={"read": "sha256:" + "4" * 64},
    target="cpu",
    machine_class="x86-64-v3",
)
ENTRY = Entry("sha256:" + "5" * 64, "2026-01-01T00:00:00Z")


def test_every_part_of_a_key_counts() -> None:
    others = {
        "stage": "import", "code": "sha256:" + "9" * 64, "environment": "sha256:" + "9" * 64, "parameters": {},
        "parents": {}, "inputs": {}, "target": "gpu", "machine_class": "x86-64-v4",
    }  # fmt: skip
    assert set(others) == {field.name for field in fields(Key)}
    for name, value in others.items():
        assert replace(KEY, **{name: value}).digest != KEY.digest, name  # type: ignore[arg-type]  # one value a field


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_the_order_of_parameters_does_not_count(parameters: dict[str, str]) -> None:
    turned = dict(reversed(parameters.items()))
    assert replace(KEY, parameters=parameters).digest == replace(KEY, parameters=turned).digest


@pytest.fixture
def cache_signer(tmp_path: Path) -> CacheSigner:
    return make_cache_signer(tmp_path / "keys")


@pytest.fixture
def cache(tmp_path: Path, cache_signer: CacheSigner) -> Cache:
    return Cache(tmp_path / "cache", cache_signer)


def find(cache: Cache, key: Key = KEY, *accepted: str, at: datetime = NOW) -> Lookup:
    return cache.find(key, accepted or ("laptop",), at)


def the_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache").iterdir()
    return path


def test_what_was_remembered_is_found_under_its_key_only(cache: Cache) -> None:
    assert find(cache) == Lookup()
    cache.remember(KEY, ENTRY)
    assert find(cache) == Lookup(replace(ENTRY, domain="laptop"))
    assert find(cache, replace(KEY, target=None)) == Lookup()


def test_a_damaged_entry_counts_as_absent_and_says_why(cache: Cache, tmp_path: Path) -> None:
    cache.remember(KEY, ENTRY)
    path = the_file(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", b"{", b"[]", b'{"record":"sha256:short","time":""}', whole[:-1], b" " + whole):
        path.write_bytes(damaged)
        found = find(cache)
        assert (found.entry, bool(found.refusal)) == (None, True), damaged


def test_no_changed_byte_is_believed(cache: Cache, tmp_path: Path) -> None:
    cache.remember(KEY, ENTRY)
    path = the_file(tmp_path)
    whole = path.read_bytes()
    # key_id is a hint: changing it changes nothing that counts.
    hint = range(whole.index(b'"key_id":"') + 10, whole.index(b'"', whole.index(b'"key_id":"') + 10))
    for at in (at for at in range(len(whole)) if at not in hint):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert find(cache).entry is None, at
    path.write_bytes(whole)
    assert find(cache).entry


def test_an_unsigned_entry_counts_as_absent(cache: Cache, tmp_path: Path) -> None:
    cache.remember(KEY, ENTRY)
    said = {name: value for name, value in loads(the_file(tmp_path).read_bytes()).items() if name != "signature"}
    the_file(tmp_path).write_bytes(dumps(said))
    assert find(cache) == Lookup(refusal="it is not signed")
    version_0 = {"key": asdict(KEY), "record": ENTRY.record, "time": ENTRY.time}
    the_file(tmp_path).write_bytes(dumps(version_0))
    assert find(cache) == Lookup(refusal="it is not signed")


def test_an_entry_that_names_another_record_is_found_out(cache: Cache, tmp_path: Path) -> None:
    cache.remember(KEY, ENTRY)
    said = loads(the_file(tmp_path).read_bytes())
    the_file(tmp_path).write_bytes(dumps({**said, "record": "sha256:" + "6" * 64}))
    assert find(cache) == Lookup(refusal="no signature is by a key of role 'cache' in the trust root")


def test_an_entry_that_was_moved_to_another_key_is_found_out(cache: Cache, tmp_path: Path) -> None:
    cache.remember(KEY, ENTRY)
    other = replace(KEY, code="sha256:" + "9" * 64)
    the_file(tmp_path).rename(tmp_path / "cache" / f"export-{other.digest.removeprefix('sha256:')}.json")
    assert find(cache, other) == Lookup(refusal="it was moved here: it was made for another key")
    # The same with the key in it changed to match: then the signature covers other bytes.
    said = loads(the_file(tmp_path).read_bytes())
    the_file(tmp_path).write_bytes(dumps({**said, "key": asdict(other)}))
    assert find(cache, other) == Lookup(refusal="no signature is by a key of role 'cache' in the trust root")


def test_another_domain_counts_only_where_it_is_accepted(tmp_path: Path) -> None:
    theirs = make_cache_signer(tmp_path / "theirs", "pull-request")
    ours = make_cache_signer(tmp_path / "ours", "release", known=[theirs])
    Cache(tmp_path / "cache", theirs).remember(KEY, ENTRY)
    mine = Cache(tmp_path / "cache", ours)
    refusal = "it is of the domain 'pull-request'; this run takes those of release only"
    assert find(mine, KEY, *ours.accepted(releasing=True)) == Lookup(refusal=refusal)
    assert find(mine, KEY, "pull-request").entry == replace(ENTRY, domain="pull-request")
    # It may call itself what it likes.
    said = loads(the_file(tmp_path).read_bytes())
    lie = {name: said[name] for name in ("version", "key", "record", "time")} | {"domain": "release"}
    signature = base64.b64encode(theirs.sign(CONTEXT + dumps(lie))).decode()
    the_file(tmp_path).write_bytes(dumps({**lie, "key_id": said["key_id"], "signature": signature}))
    assert find(mine, KEY, "release").refusal == "it claims the domain 'release', and is signed by 'pull-request'"


def test_a_stranger_s_entry_and_an_expired_key_s_count_as_absent(tmp_path: Path, cache: Cache) -> None:
    Cache(tmp_path / "cache", make_cache_signer(tmp_path / "stranger")).remember(KEY, ENTRY)
    assert find(cache).refusal == "no signature is by a key of role 'cache' in the trust root"
    cache.remember(KEY, ENTRY)
    assert "no key of role 'cache' that holds" in str(find(cache, at=NOW + timedelta(days=400)).refusal)


def test_without_a_seal_nothing_is_kept_and_nothing_is_believed(tmp_path: Path, cache: Cache) -> None:
    bare = Cache(tmp_path / "cache")
    bare.remember(KEY, ENTRY)
    assert not (tmp_path / "cache").exists()
    cache.remember(KEY, ENTRY)
    assert find(bare) == Lookup(refusal="there is no cache key to check it by; run: helix keys init")


def test_a_later_entry_replaces_the_earlier_and_leaves_no_litter(cache: Cache, tmp_path: Path) -> None:
    cache.remember(KEY, ENTRY)
    later = Entry("sha256:" + "6" * 64, "2026-02-01T00:00:00Z")
    cache.remember(KEY, later)
    assert find(cache).entry == replace(later, domain="laptop")
    assert the_file(tmp_path)
