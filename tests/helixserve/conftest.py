"""A small model's server, shared by the tests that only ask it questions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helix_lineage.shard.reader import Log
from helixserve.model.contract import Contract
from tests.helixserve import support
from tests.helixserve.target import attacked

sys.path.insert(0, str(support.TINY / "src"))  # `tiny_model`, as PYTHONPATH names a model's source in an image


@pytest.fixture
def place(tmp_path: Path) -> support.Place:
    """The small model's files, released; free to spoil."""
    return support.make_tiny(tmp_path)


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract.load(support.TINY / "model.toml")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.Serving]:
    """A server that runs for the whole session."""
    with support.serving(support.make_tiny(tmp_path_factory.mktemp("tiny"))) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.Serving]:
    """A server for a module that attacks it."""
    with attacked(tmp_path_factory.mktemp("attacked")) as made:
        yield made


@pytest.fixture(scope="session")
def log(tiny: support.Serving) -> Log:
    """The log that the shared server writes."""
    return Log(tiny.place.log)
