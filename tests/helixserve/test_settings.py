from __future__ import annotations

from pathlib import Path

import pytest

from helixserve import settings
from helixserve.errors import NotReadyError
from helixserve.settings import Settings


def test_an_image_needs_no_variable() -> None:
    read = Settings.read({})
    assert (read.home, read.root, read.log) == (Path("/opt/helix"), Path("/"), Path("/var/lib/helix/log"))
    assert (read.host, read.http_port, read.grpc_port, read.image_digest) == ("127.0.0.1", 3000, 3001, None)


def test_the_docstring_names_every_variable_and_its_default() -> None:
    table = [line.split("|")[1:3] for line in (settings.__doc__ or "").splitlines() if line.startswith("| HELIX")]
    named = {name.strip(): default.strip() for name, default in table}
    assert Settings.read(named | {"HELIX_IMAGE_DIGEST": ""}) == Settings.read({})
    assert len(named) == 17


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "-1", "٣"])
def test_a_malformed_port_is_refused_naming_the_variable(text: str) -> None:
    with pytest.raises(NotReadyError) as caught:
        Settings.read({"HELIX_GRPC_PORT": text})
    assert caught.value.where == "HELIX_GRPC_PORT"


def test_a_directory_is_a_url_or_none() -> None:
    assert Settings.read({"HELIX_DIRECTORY": ""}).directory is None
    assert Settings.read({"HELIX_DIRECTORY": "https://directory"}).directory == "https://directory"
    with pytest.raises(NotReadyError, match="'ftp://x' is not a URL") as caught:
        Settings.read({"HELIX_DIRECTORY": "ftp://x"})
    assert caught.value.where == "HELIX_DIRECTORY"


def test_origins_are_exact() -> None:
    assert Settings.read({}).cors_origins == ()
    text = "https://lab.example, http://localhost:8080,http://[::1]:3"
    assert Settings.read({"HELIX_CORS_ORIGINS": text}).cors_origins == (
        "https://lab.example",
        "http://localhost:8080",
        "http://[::1]:3",
    )


@pytest.mark.parametrize(
    "text", ["*", "lab.example", "https://lab.example/", "https://*.example", "null", "https://A.b"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(NotReadyError, match="HELIX_CORS_ORIGINS"):
        Settings.read({"HELIX_CORS_ORIGINS": text})


@pytest.mark.parametrize("text", ["1Gi", "-1", "0", "1024", "٣" * 9])
def test_a_malformed_memory_is_refused_naming_the_variable(text: str) -> None:
    assert Settings.read({"HELIX_MEMORY_BYTES": "1073741824"}).memory == 1 << 30
    with pytest.raises(NotReadyError, match="HELIX_MEMORY_BYTES"):
        Settings.read({"HELIX_MEMORY_BYTES": text})
