"""What the README shows works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from model_to_metal.local import container
from tests.clients import Address, by_json
from tests.end_to_end.conftest import HELIX, MODEL, ROOT, Released, Serving

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in that language; plain ones for the empty string."""
    # Every fence in turn: a block's end looks like the beginning of one without a language.
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for found, text in fenced if found == language]


@pytest.fixture(scope="module")
def here(serving: Serving) -> Iterator[dict[str, str]]:
    """README's ports → the ports of this server."""
    ports = serving.server
    yield {"127.0.0.1:3000": ports.http.removeprefix("http://"), "127.0.0.1:3001": ports.grpc}


def moved(text: str, here: dict[str, str]) -> str:
    for shown, real in here.items():
        text = text.replace(shown, real)
    return text


def test_the_readme_shows_the_ports_that_are_served_by_default() -> None:
    assert f"127.0.0.1:{container.HTTP_PORT}" in README
    assert f"127.0.0.1:{container.GRPC_PORT}" in README


def test_the_curl_call_designs_sequences(here: dict[str, str]) -> None:
    (curl,) = [block for block in blocks("") if block.startswith("curl ")]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", moved(curl, here)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"prediction_id"' in done.stdout


@pytest.mark.parametrize("client", ["bentoml", "tritonclient", "httpx"])
def test_the_python_calls_design_sequences(here: dict[str, str], client: str) -> None:
    (code,) = [block for block in blocks("python") if f"import {client}" in block]
    done = subprocess.run(
        [sys.executable, "-c", moved(code, here)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"[0-9a-f]{32}\.\d+", done.stdout), done.stdout


def test_the_lineage_commands_run(released: Released, serving: Serving, address: Address) -> None:
    shown = [line for block in blocks("") for line in block.splitlines() if "helix lineage" in line]
    assert [line.split()[2] for line in shown] == ["list", "trace", "replay", "audit"]
    ((prediction, _),) = by_json(
        address, "design", {"structure": (ROOT / "models" / MODEL / "golden/1ubi.pdb").read_text()}
    )
    for line in shown:
        words = line.replace(".helix/venv/bin/helix", HELIX).replace(" ID", f" {prediction}").split()
        serving.lineage(*words[2:])
