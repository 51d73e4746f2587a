"""A small client for OCI registries: blobs, manifests and referrers, by digest.

Every byte that comes back is hashed against the digest that it was asked by. Registries on
this machine and in private networks speak plain HTTP (the rule that cosign has too), others
HTTPS. Registries that ask for a login are not supported yet.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import httpx

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import Json, check_digest, digest_bytes
from helix_lineage.formats.untrusted import file_digest
from model_to_metal.errors import RegistryAway, RegistryError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY: Mapping[str, Json] = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": digest_bytes(b"{}"),
    "size": 2,
}
"""The descriptor of the empty config that artifacts carry."""

_CHUNK = 1 << 20
_SMALL = 64 << 20  # bytes; a manifest, record or bundle beyond this is an attack or a mistake
_TIMEOUT_S = 60.0
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*")


@dataclass(frozen=True, slots=True)
class Image:
    """An image (or another manifest) in a registry, by digest."""

    registry: str
    """`HOST:PORT`."""
    repository: str
    """For instance `helix/<model>`."""
    digest: str
    """`sha256:<64 hex>` of the manifest."""

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}@{self.digest}"

    @classmethod
    def parse(cls, text: str, *, registry: str = "") -> Self:
        """Read `[HOST:PORT/]REPOSITORY@sha256:HEX`; `registry` stands in for an absent host.

        Raises RegistryError. A tag is refused: it may name another image tomorrow.
        """
        place, at, digest = text.partition("@")
        host, _, rest = place.partition("/")
        named = rest and ("." in host or ":" in host or host == "localhost")
        repository = rest if named else place
        try:
            check_digest(digest)
        except CanonicalError as error:
            reason = str(error) if at else "the image is not named by digest"
            raise RegistryError(f"{reason}: expected [HOST:PORT/]REPOSITORY@sha256:HEX", where=text) from error
        if not _NAME.fullmatch(repository) or not (named or registry):
            raise RegistryError("expected [HOST:PORT/]REPOSITORY@sha256:HEX", where=text)
        return cls(host if named else registry, repository, digest)


class Client:
    """Speaks to one registry. A context manager; errors are RegistryError."""

    def __init__(self, address: str) -> None:
        self.address = address
        # No proxy, netrc or other setting of the environment comes between us and a private registry.
        self._http = httpx.Client(base_url=base_url(address), timeout=_TIMEOUT_S, trust_env=not is_private(address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def alive(self) -> bool:
        """Does a registry answer at the address?"""
        try:
            return self._http.get("/v2/", timeout=2.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """The manifest of that digest or tag, or None when there is none."""
        data = self._read(f"/v2/{repository}/manifests/{reference}", accept=f"{MANIFEST}, {INDEX}")
        if data is not None and ":" in reference and digest_bytes(data) != reference:
            raise RegistryError("the registry answered with another manifest than asked for", where=reference)
        return data

    def put_manifest(self, repository: str, data: bytes, *, tag: str | None = None) -> str:
        """Store a manifest by digest (and under `tag`); gives the digest."""
        digest = digest_bytes(data)
        media_type = str(json.loads(data).get("mediaType", MANIFEST))
        for reference in (digest, tag) if tag else (digest,):
            path = f"/v2/{repository}/manifests/{reference}"
            self._done(self._send("PUT", path, content=data, headers={"Content-Type": media_type}), path)
        return digest

    def has_blob(self, repository: str, digest: str) -> bool:
        """Does the repository hold the blob? Its bytes are not looked at."""
        return self._send("HEAD", f"/v2/{repository}/blobs/{digest}").status_code == httpx.codes.OK

    def blob(self, repository: str, digest: str) -> bytes:
        """A small blob, checked against its digest."""
        data = self._read(f"/v2/{repository}/blobs/{digest}")
        if data is None:
            raise RegistryError("the blob is absent from the registry", where=digest)
        if digest_bytes(data) != digest:
            raise RegistryError("the registry's blob does not match its digest", where=digest)
        return data

    def save_blob(self, repository: str, digest: str, path: Path) -> None:
        """Write a blob of any size to `path`, which is there only when the bytes are those of the digest."""
        half, seen = path.with_name(f".{path.name}.part"), hashlib.sha256()
        try:
            with self._open(f"/v2/{repository}/blobs/{digest}") as answer, half.open("wb") as file:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    raise RegistryError("the blob is absent from the registry", where=digest)
                self._done(answer, digest)
                for chunk in answer.iter_raw(_CHUNK):
                    seen.update(chunk)
                    file.write(chunk)
            if f"sha256:{seen.hexdigest()}" != digest:
                raise RegistryError("the registry's blob does not match its digest", where=digest)
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)

    def check_blob(self, repository: str, digest: str, size: int) -> None:
        """Read a blob of any size and hash it. Raises RegistryError when absent or not the one named."""
        seen, count = hashlib.sha256(), 0
        with self._open(f"/v2/{repository}/blobs/{digest}") as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise RegistryError("the blob is absent from the registry", where=digest)
            self._done(answer, digest)
            for chunk in answer.iter_raw(_CHUNK):
                seen.update(chunk)
                count += len(chunk)
                if count > size:
                    break  # whatever follows, it is not the blob
        if f"sha256:{seen.hexdigest()}" != digest or count != size:
            raise RegistryError("the registry's blob does not match its digest and size", where=digest)

    def put_blob(self, repository: str, data: bytes | Path) -> str:
        """Store a blob, unless the repository has it; gives its digest."""
        digest = digest_bytes(data) if isinstance(data, bytes) else file_digest(data)
        if self.has_blob(repository, digest):
            return digest
        path = f"/v2/{repository}/blobs/uploads/"
        location = self._done(self._send("POST", path), path).headers["Location"]
        upload = httpx.URL(urljoin(str(self._http.base_url), location)).copy_merge_params({"digest": digest})
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        body = data if isinstance(data, bytes) else _chunks(data)
        self._done(self._send("PUT", str(upload), content=body, headers=headers), digest)
        return digest

    def referrers(self, repository: str, digest: str, artifact_type: str | None = None) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`, of one artifact type or of all."""
        found: list[dict[str, Any]] = []
        path: str | None = f"/v2/{repository}/referrers/{digest}"
        while path:
            answer = self._done(self._send("GET", path), path)
            try:
                found += [dict(entry, digest=str(entry["digest"])) for entry in answer.json().get("manifests") or []]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RegistryError(
                    f"the registry's list of referrers cannot be read: {error!r}", where=path
                ) from error
            following = answer.links.get("next", {}).get("url")
            path = urljoin(str(answer.url), following) if following else None
        # Registries may ignore the filter of the query, so it is applied here.
        return [entry for entry in found if artifact_type in (None, entry.get("artifactType"))]

    def _read(self, path: str, accept: str = "*/*") -> bytes | None:
        with self._open(path, accept) as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            self._done(answer, path)
            data = bytearray()
            for chunk in answer.iter_raw(_CHUNK):
                data += chunk
                if len(data) > _SMALL:
                    raise RegistryError(f"the registry sent more than {_SMALL >> 20} MiB", where=path)
            return bytes(data)

    @contextmanager
    def _open(self, path: str, accept: str = "*/*") -> Iterator[httpx.Response]:
        # Identity: digests are of the stored bytes, so nothing may be compressed on the way.
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        try:
            with self._http.stream("GET", path, headers=headers, follow_redirects=True) as answer:
                yield answer
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _done(self, answer: httpx.Response, where: str) -> httpx.Response:
        if not answer.is_success:
            answer.read()
            kind = RegistryAway if answer.is_server_error else RegistryError
            raise kind(f"the registry answered {answer.status_code}: {answer.text[:300].strip()}", where=where)
        return answer

    def _unreachable(self, error: httpx.HTTPError) -> RegistryAway:
        return RegistryAway(f"no answer from the registry: {error}", where=self.address, fix="helix registry serve")


def is_private(address: str) -> bool:
    """Is `HOST:PORT` this machine or a private network?

    >>> is_private("127.0.0.1:5070"), is_private("registry.example:443")
    (True, False)
    """
    host = address.rsplit(":", 1)[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def base_url(address: str) -> str:
    """The URL of the registry at `HOST:PORT`."""
    return f"{'http' if is_private(address) else 'https'}://{address}"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
