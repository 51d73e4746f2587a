"""Where a server finds its files and ports: the one module that reads the environment.

| variable | default | what |
|---|---|---|
| HELIX_HOME | /opt/helix | model, artifacts, files.json; its grandparent is the root that files.json lists |
| HELIX_RELEASE | /etc/helix/release.sigstore.json | the signed release |
| HELIX_PROMOTION | /etc/helix/promotion.sigstore.json | the signed promotion into the environment |
| HELIX_ENVIRONMENT | | where this runs, say `production`: then a promotion for there must be mounted, else none |
| HELIX_TRUST | /etc/helix/trust.json | whose signatures count |
| HELIX_DIRECTORY | | base URL of the directory that shards are registered with; without one, none is asked |
| HELIX_DIRECTORY_TOKEN_FILE | | the token that registers shards there; a file that others cannot read |
| HELIX_LOG | /var/lib/helix/log | shards |
| HELIX_IMAGE_DIGEST | | the image's digest as the scheduler claims it |
| HELIX_CLIENT_SECONDS | 20 | how long a client may take to send a request, or to take an answer |
| HELIX_MEMORY_BYTES | | the memory that the process may use; the cgroup's limit when missing, else 1 GiB |
| HELIX_RECEIPT_TOKENS | | digests of the tokens that open receipts (see `receipts`); without it nobody gets one |
| HELIX_CORS_ORIGINS | | web origins whose pages may ask, by commas, say `https://lab.example`; none when missing |
| HELIX_LOG_FORMAT | json | `text` for people |
| OTEL_EXPORTER_OTLP_ENDPOINT | | where traces go (OTLP over HTTP); without it there are none |
| HELIX_HOST | 127.0.0.1 | address to listen on |
| HELIX_HTTP_PORT | 3000 | BentoML JSON and Open Inference Protocol over HTTP |
| HELIX_GRPC_PORT | 3001 | Open Inference Protocol over gRPC |
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.paths import PROMOTION_FILE, RELEASE_FILE
from helixserve.errors import NotReadyError

BUNDLE_BYTES = 16 * 1024 * 1024
"""Most bytes of a signed bundle or trust root that is read at all."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment of a server, read once."""

    home: Path
    """The folder `opt/helix` of an image."""
    release: Path
    promotion: Path
    environment: str | None
    """Where this runs; None outside any environment."""
    trust: Path
    directory: str | None
    """Base URL; its key and name stand in the trust root."""
    log: Path
    image_digest: str | None
    """As the scheduler claims it."""
    client_s: int
    host: str
    http_port: int
    grpc_port: int
    directory_token: Path | None = None
    """The file of the token that the directory asks of who registers a shard."""
    receipt_tokens: Path | None = None
    """Digests of the tokens that open receipts."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read answers; exact ones, for `*` would be everybody."""
    log_format: str = "json"
    memory: int | None = None
    """Bytes that the process may use, where the cgroup doesn't say."""
    traced: bool = False
    """Whether OpenTelemetry's own variables name an endpoint."""

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """From the process environment, or the mapping given. Raises NotReadyError naming the variable."""
        env = os.environ if environment is None else environment
        return cls(
            home=Path(env.get("HELIX_HOME", "/opt/helix")),
            release=Path(env.get("HELIX_RELEASE", f"/etc/helix/{RELEASE_FILE}")),
            promotion=Path(env.get("HELIX_PROMOTION", f"/etc/helix/{PROMOTION_FILE}")),
            environment=env.get("HELIX_ENVIRONMENT") or None,
            trust=Path(env.get("HELIX_TRUST", "/etc/helix/trust.json")),
            directory=_url(env, "HELIX_DIRECTORY"),
            log=Path(env.get("HELIX_LOG", "/var/lib/helix/log")),
            image_digest=env.get("HELIX_IMAGE_DIGEST") or None,
            client_s=_number(env, "HELIX_CLIENT_SECONDS", 20, "number of seconds"),
            host=env.get("HELIX_HOST", "127.0.0.1"),
            http_port=_number(env, "HELIX_HTTP_PORT", 3000, "port number"),
            grpc_port=_number(env, "HELIX_GRPC_PORT", 3001, "port number"),
            directory_token=_path(env, "HELIX_DIRECTORY_TOKEN_FILE"),
            receipt_tokens=_path(env, "HELIX_RECEIPT_TOKENS"),
            cors_origins=_origins(env, "HELIX_CORS_ORIGINS"),
            log_format=_one_of(env, "HELIX_LOG_FORMAT", ("json", "text")),
            memory=_bytes(env, "HELIX_MEMORY_BYTES"),
            traced=any(env.get(name) for name in _ENDPOINTS),
        )

    @property
    def root(self) -> Path:
        """The root of the file system that files.json lists: `/` in an image."""
        return self.home.parent.parent

    @property
    def model(self) -> Path:
        """The model's folder: model.toml, bentofile.yaml, src/."""
        return self.home / "model"

    @property
    def artifacts(self) -> Path:
        """What the export stage gave."""
        return self.home / "artifacts"

    @property
    def files(self) -> Path:
        """The list of the image's files."""
        return self.home / "files.json"


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def _one_of(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = env.get(name, choices[0])
    if text not in choices:
        raise NotReadyError(f"{text!r} is none of {', '.join(choices)}", where=name)
    return text


def _url(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name) or None
    if text is not None and not text.startswith(("http://", "https://")):
        raise NotReadyError(f"{text!r} is not a URL of http or https", where=name)
    return text


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]) if env.get(name) else None


def _origins(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    found = tuple(filter(None, (text.strip() for text in env.get(name, "").split(","))))
    for text in found:
        # As browsers send it: no path, no default port, lower case.
        if re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", text) is None:
            raise NotReadyError(
                f"{text!r} is not an origin", where=name, fix="write scheme://host or scheme://host:port"
            )
    return found


def _bytes(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name) or None
    if text is not None and re.fullmatch("[1-9][0-9]{7,17}", text) is None:
        raise NotReadyError(f"{text!r} is not a number of bytes, or too few", where=name, fix="say 1073741824")
    return None if text is None else int(text)


def _number(env: Mapping[str, str], name: str, default: int, what: str) -> int:
    text = env.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**16:
        raise NotReadyError(f"{text!r} is not a {what}", where=name)
    return int(text)
