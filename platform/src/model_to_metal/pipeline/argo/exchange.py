"""What travels between pods: orders, files, records and cache entries, as OCI artifacts in a registry.

Everything has the name of its content, so whatever is sent twice is there once, and a pod that
starts again finds what the first one left. A manifest names the blobs that belong together: a
registry that collects garbage keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.records.chain import Record
from model_to_metal.errors import RegistryAway, RegistryError
from model_to_metal.pipeline.argo.order import Order
from model_to_metal.pipeline.cache import Cache, Entry, Key, Lookup
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client

ORDERS, FILES, ENTRIES = "helix/orders", "helix/files", "helix/stages"
"""The repositories of what a release takes, of what stages give, and of which stage gave what."""
ORDER_TYPE = "application/vnd.helix.order.v1+json"
FILES_TYPE = "application/vnd.helix.files.v1"
ENTRY_TYPE = "application/vnd.helix.cache-entry.v1+json"

PATIENCE_S = 120.0
"""How long a registry may be away before a stage gives up; Argo then tries again later."""
_PAUSE_S = 1.0

T = TypeVar("T")


class Exchange:
    """One registry, as the pods of a release use it. Raises RegistryError, and RegistryAway after `patience_s`."""

    def __init__(self, client: Client, *, patience_s: float = PATIENCE_S) -> None:
        self.client = client
        self._patience_s = patience_s

    def send_order(self, order: Order, blobs: Iterable[bytes | Path]) -> str:
        """Store an order with the blobs that it names; gives its digest. Raises RegistryError when one is lacking."""
        data = order.to_bytes()
        sizes = {self._put(ORDERS, blob): _size(blob) for blob in blobs}
        if absent := sorted(set(order.blobs()) - set(sizes)):
            raise RegistryError(f"the order names a blob that was not given: {', '.join(absent)}")
        layers = [(ORDER_TYPE, self._put(ORDERS, data), len(data))]
        layers += [("application/octet-stream", digest, size) for digest, size in sorted(sizes.items())]
        digest = digest_bytes(data)
        self._manifest(ORDERS, ORDER_TYPE, layers, digest)
        return digest

    def order(self, digest: str) -> Order:
        """The order of that digest."""
        return Order.from_bytes(self._try(lambda: self.client.blob(ORDERS, digest)))

    def save(self, digest: str, path: Path, *, repository: str = ORDERS) -> None:
        """Write a blob to `path`, compared with its digest."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._try(lambda: self.client.save_blob(repository, digest, path))

    def blob(self, digest: str) -> bytes:
        """A small blob of an order."""
        return self._try(lambda: self.client.blob(ORDERS, digest))

    def send(self, record: Record, folder: Path) -> None:
        """Store a record, and before it the files that it names: a record that is there is whole."""
        layers = []
        for output in record.outputs:
            if (kept := self._put(FILES, folder / output.name)) != output.digest:
                raise RegistryError(f"{output.name} changed while it was sent", where=kept)
            layers.append(("application/octet-stream", output.digest, output.size))
        if layers:
            self._manifest(FILES, FILES_TYPE, sorted(set(layers)), record.digest)
        self._try(lambda: artifacts.push_record(self.client, record))

    def record(self, digest: str) -> Record:
        """The record of that digest."""
        return self._try(lambda: artifacts.fetch_record(self.client, digest))

    def fetch(self, record: Record, folder: Path) -> None:
        """Write every file that the record names below `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for output in record.outputs:
            self.save(output.digest, folder / output.name, repository=FILES)

    def has_files(self, record: Record) -> bool:
        """Are all files of the record there?"""
        return all(self._try(lambda digest=o.digest: self.client.has_blob(FILES, digest)) for o in record.outputs)  # type: ignore[misc]

    def find(self, cache: Cache, key: Key, accepted: tuple[str, ...], at: datetime) -> Lookup:
        """What lies under a stage's key; `cache` judges whether it counts."""
        manifest = self._try(lambda: self.client.manifest(ENTRIES, _tag(key)))
        if manifest is None:
            return Lookup()
        try:
            digest = artifacts.layer(manifest, ENTRY_TYPE)
        except RegistryError as error:
            return Lookup(refusal=error.what)
        self.save(digest, cache.path(key), repository=ENTRIES)
        return cache.find(key, accepted, at)

    def remember(self, cache: Cache, key: Key, entry: Entry) -> None:
        """Sign and store what a stage gave, where there is a key to sign with."""
        cache.remember(key, entry)
        if cache.path(key).is_file():
            data = cache.path(key).read_bytes()
            layer = (ENTRY_TYPE, self._put(ENTRIES, data), len(data))
            self._manifest(ENTRIES, ENTRY_TYPE, [layer], _tag(key))

    def _put(self, repository: str, data: bytes | Path) -> str:
        return self._try(lambda: self.client.put_blob(repository, data))

    def _manifest(self, repository: str, kind: str, layers: Iterable[tuple[str, str, int]], tag: str) -> None:
        rows = [{"mediaType": media, "digest": digest, "size": size} for media, digest, size in layers]
        self._put(repository, b"{}")
        data = artifacts.artifact(kind, rows)
        self._try(lambda: self.client.put_manifest(repository, data, tag=tag.replace(":", "-")))

    def _try(self, ask: Callable[[], T]) -> T:
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return ask()
            except RegistryAway:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_S)


def _tag(key: Key) -> str:
    return f"{key.stage}-{key.digest.removeprefix('sha256:')}"


def _size(blob: bytes | Path) -> int:
    return len(blob) if isinstance(blob, bytes) else blob.stat().st_size
