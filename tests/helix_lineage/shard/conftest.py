"""A writer that syncs and publishes at each step, for tests of every cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helix_lineage.survival import eager


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        eager(patch)
        yield patch
