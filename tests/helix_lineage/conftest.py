"""A signed release, and logs with real shards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from helix_lineage.shard import ShardWriter
from tests.helix_lineage.support import NOW_NS, Chain, Signer, World, header, make_chain

# A busy machine is no failure of a law.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture
def chain() -> Chain:
    return make_chain()


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def ram() -> Iterator[Path]:
    """A folder in memory where the machine has such a place: for tests that lay down thousands of small trees."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as folder:
        yield Path(folder)


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
