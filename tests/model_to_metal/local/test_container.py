"""How an image is run. That the real one serves, drains and replays is tested in tests/end_to_end."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.directory.admission import read_token
from helix_lineage.paths import State
from model_to_metal.errors import RuntimeStartError
from model_to_metal.local import container
from model_to_metal.supply_chain import keys

CONFIG = {
    "Entrypoint": ["/usr/bin/python3.11", "-m", "helixserve"],
    "Cmd": ["serve"],
    "Env": ["PATH=/usr/bin:/bin", "HOME=/tmp"],
    "WorkingDir": "/opt/helix/model",
}


@pytest.fixture
def specification(tmp_path: Path) -> dict[str, Any]:
    env = {"HELIX_HTTP_PORT": "3000"}
    return dict(container.specification(CONFIG, tmp_path / "rootfs", tmp_path, tmp_path / "log", env))


def test_runs_what_the_image_says(specification: dict[str, Any]) -> None:
    process = specification["process"]
    assert process["args"] == ["/usr/bin/python3.11", "-m", "helixserve", "serve"]
    assert process["cwd"] == "/opt/helix/model"
    assert process["env"] == ["PATH=/usr/bin:/bin", "HOME=/tmp", "HELIX_HTTP_PORT=3000"]


def test_runs_as_nobody_with_no_rights_on_a_read_only_root(specification: dict[str, Any]) -> None:
    process = specification["process"]
    assert process["user"]["uid"] != 0
    assert all(rights == [] for rights in process["capabilities"].values())
    assert process["noNewPrivileges"] is True
    assert specification["root"]["readonly"] is True


def test_only_the_log_and_the_private_tmp_can_be_written(specification: dict[str, Any]) -> None:
    mounts = {mount["destination"]: mount["options"] for mount in specification["mounts"]}
    assert "ro" in mounts["/etc/helix"]
    assert "rw" in mounts["/var/lib/helix/log"]
    bound = {name for name, options in mounts.items() if "bind" in options}
    assert bound == {"/etc/helix", "/var/lib/helix/log"}


def test_shares_the_hosts_network_and_nothing_else(specification: dict[str, Any]) -> None:
    kinds = {namespace["type"] for namespace in specification["linux"]["namespaces"]}
    assert kinds == {"pid", "ipc", "uts", "mount"}


def test_root_runs_the_image_as_its_numbered_user(specification: dict[str, Any]) -> None:
    expected = container.USER if os.geteuid() == 0 else os.getuid()
    assert specification["process"]["user"]["uid"] == expected


def test_without_a_release_the_command_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeStartError, match="no release on this machine") as caught,
        container.serving(State(tmp_path), "toy"),
    ):
        pass
    assert caught.value.fix == "helix run release toy"


@pytest.mark.parametrize("present", [(), ("release.sigstore.json",), ("promotion.sigstore.json",)])
def test_without_a_promotion_the_command_is_named(tmp_path: Path, present: tuple[str, ...]) -> None:
    for name in present:
        (tmp_path / name).touch()
    environment = container.Environment("staging", tmp_path)
    with (
        pytest.raises(RuntimeStartError, match="toy was not promoted to staging") as caught,
        container.serving(State(tmp_path), "toy", environment=environment),
    ):
        pass
    assert caught.value.fix == "helix promote toy --to staging"


def test_a_server_gets_the_token_that_registers_its_shards(signing: State, tmp_path: Path) -> None:
    (bundle := tmp_path / "bundle").touch()
    container._mount_identity(tmp_path / "helix", bundle, signing, None)
    token = tmp_path / "helix" / "directory.token"
    assert read_token(token) == read_token(keys.registrant(signing)[0])
    # The server's user owns it, and nobody else can read it.
    owner = container.USER if os.geteuid() == 0 else os.getuid()
    assert (token.stat().st_uid, token.stat().st_mode & 0o777) == (owner, 0o600)
    env = container._environment("sha256:x", container.Ports(), None, "http://127.0.0.1:1")
    assert env["HELIX_DIRECTORY_TOKEN_FILE"] == "/etc/helix/directory.token"


def test_a_port_that_is_taken_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(container, "HTTP_PORT", taken.getsockname()[1])
        assert container.free_ports().http != taken.getsockname()[1]


def test_while_it_starts_a_server_is_waited_for() -> None:
    body = b'{"error": "the server is starting (server)", "where": "server", "fix": null}'
    assert "starting" in container._reason(body, 503)
    assert container._reason(b"not JSON", 500) == "it answers 500"


def test_a_server_that_found_something_wrong_is_not_waited_for() -> None:
    with pytest.raises(RuntimeStartError, match="guard did not pass") as caught:
        container._reason(b'{"error": "guard did not pass", "where": "release.guard", "fix": null}', 503)
    assert caught.value.where == "release.guard"
