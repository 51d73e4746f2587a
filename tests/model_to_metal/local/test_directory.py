"""The directory that `helix serve` starts: a real process over the checkout's state."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from helix_lineage.paths import State
from model_to_metal.errors import RuntimeStartError
from model_to_metal.local import directory


def test_it_runs_while_somebody_needs_it_and_others_share_it(signing: State) -> None:
    with directory.running(signing) as url:
        assert httpx.get(f"{url}/healthz").json() == {"origin": "helix.example/directory/laptop", "size": 0}
        with directory.running(signing) as other:
            assert other == url
        assert httpx.get(f"{url}/healthz").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz")
    with directory.running(signing) as again:
        assert httpx.get(f"{again}/healthz").status_code == 200


def test_a_trust_root_without_a_directory_is_mended_by_one_command(signing: State) -> None:
    root = json.loads(signing.trust.read_text())
    root["keys"] = [key for key in root["keys"] if key["role"] != "directory"]
    signing.trust.write_text(json.dumps(root))
    with pytest.raises(RuntimeStartError, match="no key of role 'directory'") as caught, directory.running(signing):
        pass
    assert caught.value.fix == "helix keys init"


def test_a_directory_that_does_not_start_says_why(signing: State) -> None:
    (signing.keys / "directory.key").chmod(0o644)
    with pytest.raises(RuntimeStartError, match="others can read the directory's key"), directory.running(signing):
        pass


def test_a_log_elsewhere_has_a_directory_of_its_own(signing: State, tmp_path: Path) -> None:
    with directory.running(signing) as ours, directory.running(signing, tmp_path / "new" / "directory") as other:
        assert other != ours
        assert httpx.get(f"{other}/healthz").status_code == 200
        with directory.running(signing, tmp_path / "new" / "directory") as again:
            assert again == other
    assert (tmp_path / "new" / "directory").is_dir()
