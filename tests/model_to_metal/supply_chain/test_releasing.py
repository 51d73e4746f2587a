from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from model_to_metal.registry.client import Client
from model_to_metal.supply_chain import releasing
from tests.model_to_metal.conftest import Chain


def test_a_signed_release_is_found_and_verified(signing: State, signed: Chain) -> None:
    assert releasing.is_signed(signing, signed.release)
    assert releasing.signed_release(signing, "tiny").release == signed.release


def test_another_release_is_not_signed(signing: State, signed: Chain, chain_of: Callable[..., Chain]) -> None:
    assert not releasing.is_signed(signing, chain_of("sha256:" + "9" * 64).release)


def test_without_its_bundle_a_release_is_not_signed(signing: State, signed: Chain) -> None:
    shutil.rmtree(signing.releases)
    assert not releasing.is_signed(signing, signed.release)
    with pytest.raises(LineageError) as caught:
        releasing.signed_release(signing, "tiny")
    assert caught.value.fix == "helix run release tiny"


def test_with_a_spoilt_bundle_a_release_is_not_signed(signing: State, signed: Chain) -> None:
    path = signing.releases / "tiny" / "release.sigstore.json"
    path.write_bytes(path.read_bytes().replace(b'"signatures"', b'"signature"'))
    assert not releasing.is_signed(signing, signed.release)


def test_without_its_image_in_the_registry_a_release_is_not_signed(
    signing: State, signed: Chain, client: Client
) -> None:
    for path in (signing.registry / "helix" / "tiny" / "blobs" / "sha256").iterdir():
        if path.name == signed.release.parameters["image"].removeprefix("sha256:"):
            path.unlink()
    assert not releasing.is_signed(signing, signed.release)
