"""An image in the registry, the chain of records that releases it, and both of them signed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helix_lineage.paths import State
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain.attest import attest_image
from tests.model_to_metal.conftest import Chain


@pytest.fixture
def image(push: Callable[[str], Image]) -> Image:
    return push("one")


@pytest.fixture
def made(image: Image, chain_of: Callable[..., Chain]) -> Chain:
    return chain_of(image.digest)


@pytest.fixture
def signed(signing: State, client: Client, image: Image, made: Chain) -> Chain:
    """What was made, after `helix attest`."""
    attest_image(signing, client, image, made.release, records=made.records, evidence=made.evidence)
    return made
