from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from helix_lineage.errors import TrustError
from helix_lineage.evidence.releases import ReleaseSources, find_release, read_bundle
from helix_lineage.records.store import RecordStore
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Shard
from tests.helix_lineage.support import NOW_NS, Signer, World, header, make_chain, request


def _shard(world: World) -> Shard:
    (name,) = world.shard([request()])
    return world.log.find(name)[0]


def test_the_bundle_that_was_verified_comes_with_the_release(world: World) -> None:
    found = find_release(_shard(world), world.sources)
    assert found.bundle == world._bundle_once()
    assert found.verified
    assert found.problem is None


def test_nothing_stands_in_for_the_shards_own_copy_where_it_must_hold_by_itself(world: World, tmp_path: Path) -> None:
    shard, elsewhere = _shard(world), tmp_path / "elsewhere"
    elsewhere.write_bytes(shard.folder.release.read_bytes())
    known = replace(world.sources, bundles=(elsewhere,))
    assert find_release(shard, known.without_stand_ins()).verified is find_release(shard, known).verified
    shard.folder.release.unlink()
    assert find_release(shard, known).verified
    with pytest.raises(TrustError, match="no signed bundle"):
        find_release(shard, known.without_stand_ins())


def test_bundles_that_are_not_this_releases_are_passed_over(world: World, tmp_path: Path) -> None:
    """Junk, absent files, another spelling of the same release, and another release, before the right one."""
    shard = _shard(world)
    kept = shard.folder.release.read_bytes()
    shard.folder.release.unlink()
    other = make_chain(environment="sha256:" + "0" * 64)
    files = [b"", b"[]", b"{}", Signer().bundle([]), world.signer.bundle(other.statement()), kept]
    paths = [tmp_path / "absent"]
    for at, data in enumerate(files):
        paths.append(tmp_path / str(at))
        paths[-1].write_bytes(data)
    assert find_release(shard, replace(world.sources, bundles=tuple(paths))).verified
    paths[-1].write_bytes(Signer().bundle(world.chain.statement()))
    with pytest.raises(TrustError, match="no signature is by a key of role 'releaser'"):
        find_release(shard, replace(world.sources, bundles=tuple(paths)))


def test_a_header_that_names_another_kind_of_record(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "store")
    chain = make_chain()
    for record in chain.records.values():
        store.put_record(record)
    world = World(tmp_path, chain, Signer())
    claims = {"release": chain.parts["weights"].digest}
    with ShardWriter.create(world.log_dir, header(**claims), now=lambda: NOW_NS) as writer:
        (name,) = writer.append(request())
    with pytest.raises(TrustError, match=r"the header's release is a helix\.trained-weights"):
        find_release(world.log.find(name)[0], ReleaseSources(store=store))


def test_a_bundle_that_somebody_named_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(b"{}")
    (tmp_path / "link").symlink_to("bundle")
    assert read_bundle(tmp_path / "link") == b"{}"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TrustError, match="cannot read the bundle: it is a pipe"):
        read_bundle(tmp_path / "pipe")
