from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.paths import State
from model_to_metal.errors import RegistryError
from model_to_metal.registry.client import Client, Image, base_url, is_private

HEX = "a" * 64
NAMES = st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", fullmatch=True)


@given(st.sampled_from(["127.0.0.1:5070", "registry.example", "localhost:80"]), NAMES, st.binary())
def test_an_image_reads_back_as_it_was_written(registry: str, name: str, content: bytes) -> None:
    image = Image(registry, name, digest_bytes(content))
    assert Image.parse(str(image)) == image
    assert Image.parse(f"{name}@{image.digest}", registry=registry) == image


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:5070/helix/tiny:latest",
        "127.0.0.1:5070/helix/tiny",
        "127.0.0.1:5070/helix/tiny@sha256:abc",
        f"127.0.0.1:5070/@sha256:{HEX}",
        f"127.0.0.1:5070/Helix@sha256:{HEX}",
        f"127.0.0.1:5070/../x@sha256:{HEX}",
    ],
)
def test_an_image_that_is_not_named_by_digest_is_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="sha256:HEX"):
        Image.parse(text)


def test_without_a_host_there_must_be_a_default() -> None:
    with pytest.raises(RegistryError):
        Image.parse(f"helix/tiny@sha256:{HEX}")


def test_only_private_addresses_are_spoken_to_in_the_clear() -> None:
    assert [is_private(text) for text in ("10.1.2.3:5000", "[::1]:5000", "localhost:1", "8.8.8.8:443")] == [
        True,
        True,
        True,
        False,
    ]
    assert base_url("registry.example") == "https://registry.example"


def test_blobs_and_manifests_come_back_by_digest(client: Client, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (3 << 20))
    digest = client.put_blob("helix/tiny", big)
    assert digest == digest_bytes(big.read_bytes())
    client.check_blob("helix/tiny", digest, 3 << 20)
    assert client.blob("helix/tiny", client.put_blob("helix/tiny", b"small")) == b"small"
    assert client.manifest("helix/tiny", digest_bytes(b"nothing")) is None


def test_a_blob_that_rotted_in_the_registry_is_found(client: Client, state: State) -> None:
    digest = client.put_blob("helix/tiny", b"genuine")
    (state.registry / "helix/tiny/blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(b"planted")
    with pytest.raises(RegistryError, match="does not match its digest"):
        client.blob("helix/tiny", digest)
    with pytest.raises(RegistryError, match="does not match its digest and size"):
        client.check_blob("helix/tiny", digest, 7)


def test_an_absent_blob_is_named(client: Client) -> None:
    client.put_blob("helix/tiny", b"so that the repository exists")
    absent = digest_bytes(b"absent")
    for read in (lambda: client.blob("helix/tiny", absent), lambda: client.check_blob("helix/tiny", absent, 6)):
        with pytest.raises(RegistryError, match="absent") as caught:
            read()
        assert caught.value.where == absent


def test_no_answer_says_how_to_start_a_registry() -> None:
    with Client("127.0.0.1:1") as client:
        assert not client.alive()
        with pytest.raises(RegistryError) as caught:
            client.manifest("helix/tiny", "latest")
    assert caught.value.fix == "helix registry serve"


def test_a_manifest_swapped_in_the_registry_is_found(
    client: Client, push: Callable[[str], Image], state: State
) -> None:
    image = push("one")
    (state.registry / "helix/tiny/blobs/sha256" / image.digest.removeprefix("sha256:")).write_bytes(b"{}")
    with pytest.raises(RegistryError, match="another manifest"):
        client.manifest(image.repository, image.digest)
