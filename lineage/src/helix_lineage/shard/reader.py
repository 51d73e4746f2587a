"""Reads shards: entries, proofs, payloads. Writes nothing, and works beside a living writer.

What is published is read from tiles, as any tlog-tiles client would; what is newer, from the
journal. Nothing is believed: a header must make the shard's id, and an entry must lie under a
checkpoint that the header's key signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from helix_lineage.errors import LineageError, PredictionNotFound, ShardError, explaining
from helix_lineage.formats import untrusted
from helix_lineage.shard import entries
from helix_lineage.shard.header import ShardHeader, parse_prediction_id, shard_id
from helix_lineage.shard.payload_reader import Payload, PayloadReader
from helix_lineage.tlog import checkpoint, journal, merkle, tiles
from helix_lineage.tlog.disk import is_locked
from helix_lineage.tlog.layout import (
    ENTRIES,
    MAX_JOURNAL_BYTES,
    MAX_NOTE_BYTES,
    MAX_TILE_BYTES,
    TILE_WIDTH,
    ShardFolder,
    is_shard_id,
)


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Why an entry is in the log."""

    sequence: int
    leaf: bytes
    """Leaf hash of the entry."""
    proof: tuple[bytes, ...]
    """Audit path, from the leaf up."""
    note: bytes
    """The signed checkpoint that the proof leads to."""
    checkpoint: checkpoint.Checkpoint

    @property
    def holds(self) -> bool:
        """Does the proof lead to the checkpoint's root?"""
        log = self.checkpoint
        return merkle.verify_inclusion(self.sequence, log.size, self.leaf, self.proof, log.root)


class Shard:
    """One shard, as it is at the moment of opening."""

    def __init__(self, path: Path, payloads: PayloadReader | None = None) -> None:
        """Open the shard's folder. Raises ShardError when its header does not hold.

        Args:
            payloads: a reader of this shard's payload that knows already where records lie.
        """
        self.folder = ShardFolder(path)
        self.payloads = payloads or PayloadReader(self.folder)
        first = self._first_entry()
        if shard_id(first) != self.folder.id:
            raise ShardError(f"the header makes the id {shard_id(first)}", where=str(path))
        self.header = ShardHeader.from_bytes(first)

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.folder.id

    @property
    def origin(self) -> str:
        """The log's name in its checkpoints."""
        return checkpoint.SHARD_ORIGIN + self.id

    @property
    def live(self) -> bool:
        """Does its process hold the lock now?"""
        return is_locked(self.folder.lock)

    @property
    def ended(self) -> bool:
        """Is the last published entry a close entry?"""
        last = self.published[1].size - 1
        return last > 0 and isinstance(entries.decode(self.entry(last)), entries.Close)

    @cached_property
    def published(self) -> tuple[bytes, checkpoint.Checkpoint]:
        """The published checkpoint: note and content. Raises ShardError or TrustError."""
        note = _read(self.folder.checkpoint, MAX_NOTE_BYTES)
        return note, checkpoint.verify(note, self.origin, self.header.public_key)

    @cached_property
    def journal(self) -> journal.Journal:
        """The journal, parsed."""
        return journal.parse(_read(self.folder.journal, MAX_JOURNAL_BYTES))

    @property
    def size(self) -> int:
        """Entries under the last checkpoint of the journal."""
        return self.journal.covered

    @property
    def published_size(self) -> int:
        """Entries that the tiles hold."""
        return self._published_size()

    def unpublished(self) -> list[bytes]:
        """What the journal holds beyond the tiles, under its last checkpoint; the journal is not kept in memory."""
        path = self.folder.journal
        with explaining(ShardError, "cannot read the shard", where=str(path)), path.open("rb") as file:
            return journal.tail(file, self._published_size())

    def bundle(self, index: int, width: int) -> bytes:
        """Entry bundle `index` of the published tiles, of at least that width. Raises ShardError."""
        return self._read_tile(ENTRIES, index, width)

    def entry(self, sequence: int) -> bytes:
        """Entry `sequence`. Raises PredictionNotFound when the shard has no such entry."""
        if sequence < self._published_size():
            index, row = divmod(sequence, TILE_WIDTH)
            width = min(TILE_WIDTH, self._published_size() - index * TILE_WIDTH)
            entry = tiles.entry_of(self._read_tile(ENTRIES, index, width), row)
            if entry is not None:
                return entry
        if sequence < self.size:
            return self.journal.entries[sequence]
        raise PredictionNotFound(f"the shard has {self.size} entries", where=f"{self.id}.{sequence}")

    def prediction(self, sequence: int) -> entries.PredictionEntry:
        """The prediction entry `sequence`. Raises PredictionNotFound when there is none."""
        entry = entries.decode(self.entry(sequence)) if sequence else None
        if not isinstance(entry, entries.PredictionEntry):
            raise PredictionNotFound("that entry is not a prediction", where=f"{self.id}.{sequence}")
        return entry

    def inclusion(self, sequence: int) -> Inclusion:
        """Proof that entry `sequence` is under a checkpoint that the shard's key signed. Raises ShardError."""
        leaf = merkle.leaf_hash(self.entry(sequence))
        if sequence < self._published_size():
            note, signed = self.published
            subtree = tiles.subtree_of(signed.size, self._hash_tile)
        else:
            note = self.journal.checkpoints[-1].note
            signed = checkpoint.verify(note, self.origin, self.header.public_key)
            subtree = merkle.from_leaves([merkle.leaf_hash(entry) for entry in self.journal.entries[: self.size]])
        proof = merkle.prove_inclusion(sequence, signed.size, subtree)
        found = Inclusion(sequence, leaf, tuple(proof), note, signed)
        if not found.holds:
            raise ShardError(
                "the entry is not the one under the signed checkpoint",
                where=f"{self.id}.{sequence}",
                fix="helix-lineage audit",
            )
        return found

    def consistency(self, first: int) -> list[bytes]:
        """Proof that the published checkpoint extends the one of size `first`. Raises ShardError."""
        size = self.published[1].size
        return merkle.prove_consistency(first, size, tiles.subtree_of(size, self._hash_tile))

    def payload(self, sequence: int) -> Payload:
        """What is kept of item `sequence`. Raises ShardError."""
        return self.payloads.read(sequence)

    def predictions(self) -> Iterator[tuple[int, entries.PredictionEntry]]:
        """`(sequence, entry)` of every prediction, in order."""
        for sequence in range(1, self.size):
            entry = entries.decode(self.journal.entries[sequence])
            if isinstance(entry, entries.PredictionEntry):
                yield sequence, entry

    def _first_entry(self) -> bytes:
        try:
            size = checkpoint.parse(_read(self.folder.checkpoint, MAX_NOTE_BYTES)).size
            first = tiles.entry_of(self._read_tile(ENTRIES, 0, min(size, TILE_WIDTH)), 0)
            if first is not None and shard_id(first) == self.id:
                return first
        except LineageError:
            pass  # not published yet, or damaged: the journal decides
        found = self.journal
        if not found.entries:
            raise ShardError(f"the journal holds no header: {found.damage}", where=str(self.folder.root))
        return found.entries[0]

    def _published_size(self) -> int:
        return self.published[1].size if self.folder.checkpoint.exists() else 0

    def _hash_tile(self, level: int, index: int, width: int) -> bytes:
        return self._read_tile(str(level), index, width)[: 32 * width]

    def _read_tile(self, kind: str, index: int, width: int) -> bytes:
        """A tile of at least that width: the partial one may have made room for a wider one meanwhile."""
        for path in self.folder.as_wide(kind, index, width):
            found = _read_if_there(path, MAX_TILE_BYTES)
            if found is not None:
                return found
        raise ShardError("cannot read the shard: a tile is missing", where=str(self.folder.tile(kind, index, width)))


class Log:
    """A folder of shards."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._payloads: dict[str, PayloadReader] = {}
        """Kept for as long as the log: finding a record reads a whole segment once."""

    def shard_ids(self) -> list[str]:
        """The shards that are there, sorted. Raises ShardError. (A link is not a shard, whatever it leads to.)"""
        return [path.name for path in self._named() if path.is_dir() and not path.is_symlink()]

    def foreign_files(self) -> list[Path]:
        """What has a shard's name and is not a folder."""
        return [path for path in self._named() if path.is_symlink() or not path.is_dir()]

    def shard(self, name: str) -> Shard:
        """Open a shard. Raises ShardError."""
        path = self.root / name
        if not is_shard_id(name) or path.is_symlink() or not path.is_dir():
            raise PredictionNotFound(f"no shard of that id in {self.root}", where=name)
        return Shard(path, self._payloads.setdefault(name, PayloadReader(ShardFolder(path))))

    def find(self, prediction: str) -> tuple[Shard, int]:
        """The shard and the sequence of a prediction id. Raises ShardError or PredictionNotFound."""
        name, sequence = parse_prediction_id(prediction)
        return self.shard(name), sequence

    def _named(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        with explaining(ShardError, "cannot list the shards", where=str(self.root)):
            return sorted(path for path in self.root.iterdir() if is_shard_id(path.name))


def _read(path: Path, limit: int) -> bytes:
    found = _read_if_there(path, limit)
    if found is None:
        raise ShardError("cannot read the shard: the file is missing", where=str(path))
    return found


def _read_if_there(path: Path, limit: int) -> bytes | None:
    try:
        return untrusted.read(path, limit=limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ShardError(f"cannot read the shard: {error.strerror}", where=str(path)) from error
