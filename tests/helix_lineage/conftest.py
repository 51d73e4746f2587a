"""A signed release, and logs with real shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.shard import ShardWriter
from tests.helix_lineage.support import NOW_NS, Chain, Signer, World, header, make_chain


@pytest.fixture
def chain() -> Chain:
    return make_chain()


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def world(tmp_path: Path, chain: Chain, signer: Signer) -> World:
    return World(tmp_path, chain, signer)


@pytest.fixture
def open_shard(tmp_path: Path) -> Iterator[Callable[..., ShardWriter]]:
    """Opens shards without a release; closes what is still open at the end."""
    opened: list[ShardWriter] = []

    def make(log_dir: Path | None = None, **changes: Any) -> ShardWriter:
        writer = ShardWriter.create(log_dir or tmp_path / "log", header(**changes), now=lambda: NOW_NS)
        opened.append(writer)
        return writer

    yield make
    for writer in opened:
        writer.close()
