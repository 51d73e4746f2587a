"""Writes the tiles of a growing log, from synced entries only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from helix_lineage.tlog import merkle
from helix_lineage.tlog.disk import remove_tree, replace_file, sync_if_there
from helix_lineage.tlog.layout import TILE_WIDTH, ShardFolder
from helix_lineage.tlog.tiles import encode_bundle


class TileWriter:
    """Collects entries, and publishes tiles and the checkpoint that they are for."""

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder
        """May be renamed while nothing waits to be published."""
        self._bundle: list[bytes] = []
        self._levels: list[list[bytes]] = []
        self._full: deque[tuple[Path, bytes]] = deque()
        self._unsynced: set[Path] = set()
        """Files and folders that a power cut may still change."""
        self.size = 0
        """Entries taken."""
        self.published = 0
        """Entries under the published checkpoint."""

    def add(self, entry: bytes, leaf: bytes) -> None:
        """Take a synced entry."""
        self._bundle.append(entry)
        if len(self._bundle) == TILE_WIDTH:
            self._full.append((self.folder.bundle(self.size // TILE_WIDTH), encode_bundle(self._bundle)))
            self._bundle = []
        self._add_hash(0, leaf, self.size)
        self.size += 1

    def publish(self, note: bytes, *, durable: bool) -> None:
        """Write what is new, then the checkpoint `note` of the current size. Raises OSError; may be tried again."""
        self.lay(durable=durable)
        replace_file(self.folder.checkpoint, note, durable=durable)
        self.published = self.size

    def lay(self, *, durable: bool) -> None:
        """Write what is new, and no checkpoint yet. Raises OSError; may be tried again."""
        while self._full:
            path, data = self._full[0]
            replace_file(path, data, durable=durable)
            remove_tree(path.with_name(path.name + ".p"))
            # Not synced one by one: that would hold up those who wait for the journal's syncs.
            self._unsynced |= {path, path.parent}
            self._full.popleft()
        for path, data in self._partial():
            replace_file(path, data, durable=durable)
            self._unsynced |= {path, path.parent}
        if durable:
            # Earlier partial tiles stay for clients with an earlier checkpoint: they must not tear either.
            for path in sorted(self._unsynced):
                sync_if_there(path)
            self._unsynced.clear()

    def _partial(self) -> Iterator[tuple[Path, bytes]]:
        """The tiles at the right edge of the tree."""
        if self._bundle:
            yield self.folder.bundle(self.size // TILE_WIDTH, len(self._bundle)), encode_bundle(self._bundle)
        nodes = self.size
        for level, hashes in enumerate(self._levels):
            if hashes:
                yield self.folder.hash_tile(level, nodes // TILE_WIDTH, len(hashes)), b"".join(hashes)
            nodes //= TILE_WIDTH

    def _add_hash(self, level: int, node: bytes, index: int) -> None:
        if level == len(self._levels):
            self._levels.append([])
        hashes = self._levels[level]
        hashes.append(node)
        if len(hashes) == TILE_WIDTH:
            tile = index // TILE_WIDTH
            self._full.append((self.folder.hash_tile(level, tile), b"".join(hashes)))
            self._levels[level] = []
            self._add_hash(level + 1, merkle.root(hashes), tile)
