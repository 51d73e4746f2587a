"""One cluster for all tests that only look at one; those that start and stop theirs bring their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import support


@pytest.fixture(scope="session")
def cluster() -> Iterator[support.Running]:
    """A cluster that runs, with a pod that serves and one that asks."""
    running = support.up("shared")
    try:
        running.apply(
            running.pod("web", "serve", ":8080", container={"ports": [{"containerPort": 8080, "name": "http"}]}),
            running.pod("client"),
            support.service("web", target=8080),
        )
        yield running
    finally:
        assert support.helix("down", "--name", "shared").returncode == 0
