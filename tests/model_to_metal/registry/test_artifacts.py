from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.paths import State
from model_to_metal.errors import RegistryError
from model_to_metal.host import tools
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image


def test_a_stock_client_reads_what_was_pushed_by_digest(push: Callable[[str], Image]) -> None:
    image = push("one")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{image}"]
    manifest = subprocess.run(command, check=True, capture_output=True).stdout
    assert json.loads(manifest)["layers"][0]["size"] > 0


def test_pushing_twice_changes_nothing(push: Callable[[str], Image], client: Client, tmp_path: Path) -> None:
    image = push("one")
    assert artifacts.push_layout(client, "helix/tiny", tmp_path / "layout-one", image.digest) == image


def test_a_layout_whose_blob_was_changed_is_not_pushed(
    client: Client, push: Callable[[str], Image], tmp_path: Path
) -> None:
    image = push("one")
    layout = tmp_path / "layout-one"
    manifest = json.loads((layout / "blobs/sha256" / image.digest[7:]).read_bytes())
    (layout / "blobs/sha256" / manifest["layers"][0]["digest"][7:]).write_bytes(b"planted")
    with pytest.raises(RegistryError, match="does not match its digest"):
        artifacts.push_layout(client, "helix/other", layout, image.digest)


def test_a_layout_without_the_image_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no whole image"):
        artifacts.push_layout(client, "helix/tiny", tmp_path, "sha256:" + "0" * 64)


def test_records_are_artifacts_tagged_by_digest(client: Client, chain_of: Callable[..., Any]) -> None:
    record = chain_of("sha256:" + "0" * 64).release
    digest = artifacts.push_record(client, record)
    assert artifacts.push_record(client, record) == digest == record.digest
    assert artifacts.fetch_record(client, digest) == record
    with pytest.raises(RegistryError, match="no record"):
        artifacts.fetch_record(client, "sha256:" + "0" * 64)


def test_a_stock_client_lists_the_records_of_an_image(
    client: Client, push: Callable[[str], Image], chain_of: Callable[..., Any], checkout_state: State, tmp_path: Path
) -> None:
    image = push("one")
    chain = chain_of(image.digest)
    first = artifacts.attach_records(client, image, chain.records, chain.evidence)
    assert artifacts.attach_records(client, image, chain.records, chain.evidence) == first
    records, evidence = artifacts.attached_records(client, image)
    assert records == {record.digest: record for record in chain.records}
    assert evidence == chain.evidence
    regctl = tools.ensure("regctl", checkout_state)
    command = [
        regctl,
        "--host",
        f"reg={client.address},tls=disabled",
        "artifact",
        "list",
        str(image),
        "--format",
        "{{json .}}",
    ]
    environment = {**os.environ, "HOME": str(tmp_path)}
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    assert [(row["digest"], row["artifactType"]) for row in listed["descriptors"]] == [
        (first, artifacts.RECORD_SET_TYPE)
    ]


def test_what_was_stored_outlives_the_server(state: State, tmp_path: Path, push: Callable[[str], Image]) -> None:
    image = push("one")
    assert Path(state.registry / "helix/tiny/index.json").is_file()
    with artifacts.serving(state, port=0) as address, Client(address) as client:
        assert client.manifest(image.repository, image.digest) is not None


def test_the_last_user_stops_the_server(state: State) -> None:
    with artifacts.serving(state, port=0) as first:
        with artifacts.serving(state, port=0) as second:
            assert second == first
        with Client(first) as client:
            assert client.alive()
    with Client(first) as client:
        assert not client.alive()
    with artifacts.serving(state, port=0) as third, Client(third) as client:
        assert client.alive()


def test_the_server_outlives_its_starter_while_another_uses_it(state: State) -> None:
    script = (
        "import sys; from pathlib import Path; from model_to_metal.registry import artifacts; State = artifacts.State\n"
        "with artifacts.serving(State(Path(sys.argv[1])), port=0) as address: print(address, flush=True); input()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(state.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with starter:
        assert starter.stdout is not None
        address = starter.stdout.readline().strip()
        with artifacts.serving(state, port=0) as shared:
            assert shared == address
            starter.communicate("\n")
            with Client(shared) as client:
                assert client.alive()
    with Client(address) as client:
        assert not client.alive()


def test_a_server_that_was_killed_is_started_again(state: State) -> None:
    with artifacts.serving(state, port=0) as first:
        os.kill(json.loads((state.registry / ".server.json").read_bytes())["pid"], 9)
        with artifacts.serving(state, port=0) as second, Client(second) as client:
            assert client.alive()
    assert first


def test_a_port_that_is_taken_is_not_waited_for(state: State, tmp_path: Path, built_tools: Path) -> None:
    other = State(tmp_path / "other")
    other.root.mkdir()
    (other.root / "tools").symlink_to(built_tools)
    with artifacts.serving(state, port=0) as first, artifacts.serving(other, port=int(first.split(":")[1])) as second:
        assert second != first


def test_another_registry_may_be_named(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with artifacts.serving(state, port=0) as address:
        monkeypatch.setenv("HELIX_REGISTRY", address)
        with artifacts.serving(State(state.root / "elsewhere")) as named:
            assert named == address
    with pytest.raises(RegistryError, match="does not answer"), artifacts.serving(state):
        pass
