"""Where a directory's log is read from: a URL or a folder. C2SP tlog-tiles, either way."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from helix_lineage.errors import DirectoryAway, DirectoryError, TrustError
from helix_lineage.formats import untrusted
from helix_lineage.tlog import merkle
from helix_lineage.tlog.layout import TILE_WIDTH, tile_name
from helix_lineage.tlog.tiles import decode_bundle, subtree_of

if TYPE_CHECKING:
    import httpx

_LONGEST = 64 * 2**20
"""An entry bundle of 256 entries of 65535 bytes is smaller."""


class Source(ABC):
    """A log that can be read."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The file of that name; None when there is none. Raises DirectoryAway."""

    def close(self) -> None:  # noqa: B027  a folder needs nothing
        """Let go of a connection."""

    def require(self, name: str) -> bytes:
        """The file of that name. Raises DirectoryAway when there is none."""
        data = self.read(name)
        if data is None:
            raise DirectoryAway("the directory does not hold this", where=f"{self}/{name}")
        return data

    def tile(self, kind: str, index: int, width: int) -> bytes:
        """A tile of at least that width: a partial one goes when it is full."""
        name = f"tile/{kind}/{tile_name(index)}"
        data = self.read(f"{name}.p/{width}") if width < TILE_WIDTH else None
        return data if data is not None else self.require(name)

    def subtree(self, size: int) -> merkle.Subtree:
        """Subtree roots of the log of that size. Raises DirectoryAway, and DirectoryError for a broken tile."""
        return subtree_of(size, lambda level, index, width: self.tile(str(level), index, width)[: 32 * width])

    def entries(self, first: int, size: int) -> list[bytes]:
        """Entries `[first, size)` of the log of that size. Raises DirectoryAway or DirectoryError."""
        found: list[bytes] = []
        for index in range(first // TILE_WIDTH, -(-size // TILE_WIDTH)):
            width = min(TILE_WIDTH, size - index * TILE_WIDTH)
            bundle = decode_bundle(self.tile("entries", index, width))[:width]
            if len(bundle) < width:
                raise DirectoryError(f"entry bundle {index} holds {len(bundle)} entries, not {width}", where=str(self))
            found += bundle[max(0, first - index * TILE_WIDTH) :]
        return found


class FolderSource(Source):
    """The directory's own folder, or a copy of it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def require(self, name: str) -> bytes:
        """The file of that name. Raises DirectoryError when there is none: asking again would not help."""
        data = self.read(name)
        if data is None:
            raise DirectoryError(f"the file {name} is missing", where=f"{self}/{name}")
        return data

    def read(self, name: str) -> bytes | None:
        """The file of that name. Raises TrustError when something else lies in its place, and DirectoryAway."""
        place = name.removeprefix("v1/").replace("statements/", "statement/")
        try:
            return untrusted.read(self._root / place, limit=_LONGEST)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except untrusted.RefusedFile as error:
            where = str(self._root / place)
            raise TrustError(f"the directory's folder does not hold: {error.strerror}", where=where) from error
        except OSError as error:
            raise DirectoryAway(
                f"cannot read the directory: {error.strerror}", where=str(self._root / place)
            ) from error


class UrlSource(Source):
    """A directory that runs."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self._url, self._http = url.rstrip("/"), http

    def __str__(self) -> str:
        return self._url

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def read(self, name: str) -> bytes | None:
        """The file of that name."""
        status, data = fetch(self._http, "GET", f"{self._url}/{name}")
        if status == 404:
            return None
        if status != 200:
            raise DirectoryAway(f"the directory answers {status}", where=f"{self._url}/{name}")
        return data


def fetch(
    http: httpx.Client, method: str, url: str, content: bytes | None = None, token: str | None = None
) -> tuple[int, bytes]:
    """Status and body. Raises DirectoryAway when there is no answer, or one without end."""
    import httpx  # noqa: PLC0415  only who talks to a directory needs it

    try:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        with http.stream(method, url, content=content, headers=headers) as answer:
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > _LONGEST:
                    raise DirectoryAway("the directory's answer has no end", where=url)
            return answer.status_code, bytes(data)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DirectoryAway(f"the directory cannot be reached: {error or type(error).__name__}", where=url) from error


def open_source(place: str, *, timeout_s: float = 10.0) -> Source:
    """A source by URL (http:// or https://) or folder. Raises DirectoryError."""
    if place.startswith(("http://", "https://")):
        return UrlSource(place, client(place, timeout_s))
    root = Path(place)
    if not root.is_dir():
        raise DirectoryError("there is no directory here", where=place)
    return FolderSource(root)


def client(url: str, timeout_s: float) -> httpx.Client:
    """An HTTP client for one server. Raises DirectoryError when httpx is not installed."""
    try:
        import httpx  # noqa: PLC0415
    except ImportError as error:
        raise DirectoryError("httpx is not installed", fix="pip install 'helix-lineage[directory]'") from error
    # Certificates take a tenth of a second to load; where there is no TLS, none is trusted.
    verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.startswith("http://") else True
    # No proxy and no redirect: what the environment or the other side says must not choose whom we believe to talk to.
    return httpx.Client(verify=verify, timeout=timeout_s, trust_env=False, follow_redirects=False)
