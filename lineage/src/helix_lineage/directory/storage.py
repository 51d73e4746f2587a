"""The directory's log on the disk: what `append` returns for is synced, signed, and stays.

The same journal, tiles and checkpoints as a shard's, but the key is kept, and a restart goes on
with the same log: a torn tail is cut off (it was never acknowledged), the tiles are derived
again. A journal that is shorter than its own published checkpoint was rolled back or damaged:
then nothing is opened.

    <folder>/lock  journal  journal.torn  checkpoint  tile/…  statement/<64 hex>
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helix_lineage.directory.entries import MAX_BUNDLE_BYTES, StatementEntry, decode, digest_of
from helix_lineage.errors import DirectoryAway, DirectoryError, ShardError, StatementMissing, TrustError, reason
from helix_lineage.formats import untrusted
from helix_lineage.tlog import checkpoint, journal, merkle
from helix_lineage.tlog.checkpoint import Checkpoint, raw_public_key, sign
from helix_lineage.tlog.disk import (
    AppendFile,
    FolderLock,
    cut_file,
    make_folder,
    remove_file,
    remove_tree,
    rename_file,
    replace_file,
    sync_folder,
)
from helix_lineage.tlog.layout import (
    MAX_JOURNAL_BYTES,
    MAX_NOTE_BYTES,
    MAX_TILE_BYTES,
    TEMPORARY,
    TILE_WIDTH,
    ShardFolder,
)
from helix_lineage.tlog.tile_files import reach
from helix_lineage.tlog.tile_writer import TileWriter
from helix_lineage.tlog.tiles import decode_bundle, subtree_of

STATEMENTS = "statement"
"""The folder of the signed bundles, each named by its digest."""
CUT = "the folder was rolled back, damaged, or copied while the directory ran"
"""What it means when more lies beside a journal than its entries made."""
_NEW = ".new"
"""Ends the name of a bundle until its entry is synced."""
_STATEMENT = re.compile(r"[0-9a-f]{64}")
_BEGINNING = 512
"""A journal without a checkpoint is not longer than this when it was only begun."""


class DirectoryLog:
    """The one writer of a directory's folder. Not thread-safe."""

    def __init__(self, root: Path, origin: str, key: Ed25519PrivateKey, file: AppendFile, lock: FolderLock) -> None:
        """Use `open`."""
        self.root, self.origin = root, origin
        self._folder = ShardFolder(root)
        self._key, self._journal, self._lock = key, file, lock
        self._frontier, self._tiles = merkle.Frontier(), TileWriter(self._folder)
        self._note = b""
        self._broken: str | None = None

    @classmethod
    def open(cls, root: Path, origin: str, key: Ed25519PrivateKey) -> DirectoryLog:
        """Begin a log, or go on with the one that is there. Raises DirectoryError."""
        folder = ShardFolder(root)
        with ExitStack() as undo:
            try:
                make_folder(root)
                lock = FolderLock(folder.lock)
                undo.callback(lock.release)
                entries = _recover(folder, origin, key)
                file = AppendFile.reopen(folder.journal) if entries is not None else AppendFile(folder.journal)
                undo.callback(file.close)
                log = cls(root, origin, key, file, lock)
                log._begin(entries)
            except BlockingIOError as error:
                raise DirectoryError("another process runs this directory", where=str(root)) from error
            except (OSError, ShardError) as error:
                raise DirectoryError(f"cannot open the directory's log: {reason(error)}", where=str(root)) from error
            undo.pop_all()
        return log

    @property
    def size(self) -> int:
        """Entries."""
        return self._frontier.size

    @property
    def note(self) -> bytes:
        """The newest signed checkpoint."""
        return self._note

    def append(self, entry: bytes, bundle: bytes | None = None) -> int:
        """Keep a statement's bundle, then the entry; gives its index. Raises DirectoryAway when it is not kept."""
        if self._broken:
            raise DirectoryAway(f"the log takes no more entries: {self._broken}", where=str(self.root))
        try:
            if bundle is not None:
                replace_file(self._new_statement(digest_of(bundle)), bundle, durable=True)
            self._write([entry])
            if bundle is not None:
                self._settle(digest_of(bundle))
        except OSError as error:
            raise DirectoryAway(f"cannot write the log: {reason(error)}", where=str(self.root)) from error
        return self.size - 1

    def publish(self) -> None:
        """Write the tiles of what is synced, if that is still to do. Raises OSError."""
        if self._tiles.published < self._tiles.size:
            self._tiles.publish(self._note, durable=False)

    def entry(self, index: int) -> bytes:
        """Entry `index`, from its tile. Raises DirectoryAway."""
        number, row = divmod(index, TILE_WIDTH)
        try:
            return decode_bundle(self.tile("entries", number))[row]
        except (OSError, ShardError, IndexError) as error:
            raise DirectoryAway(f"cannot read entry {index}: {reason(error)}", where=str(self.root)) from error

    def prove_inclusion(self, index: int) -> list[bytes]:
        """Audit path of an entry under the newest checkpoint. Raises DirectoryAway."""
        return merkle.prove_inclusion(index, self.size, self._subtree())

    def prove_consistency(self, first: int) -> list[bytes]:
        """That the newest checkpoint extends the one of size `first` (from 1 on)."""
        return merkle.prove_consistency(first, self.size, self._subtree())

    def tile(self, kind: str, index: int) -> bytes:
        """The widest tile there is. Raises OSError."""
        width = min(TILE_WIDTH, self._nodes(kind) - index * TILE_WIDTH)
        path = (
            self._folder.bundle(index, width) if kind == "entries" else self._folder.hash_tile(int(kind), index, width)
        )
        return untrusted.read(path, limit=MAX_TILE_BYTES)

    def statements(self, digest: bytes) -> bytes | None:
        """A bundle that was kept; None when it is not there. Raises StatementMissing, DirectoryAway."""
        path = self._statement(digest)
        try:
            return untrusted.read(path, limit=MAX_BUNDLE_BYTES)
        except FileNotFoundError:
            return None
        except untrusted.RefusedFile as error:
            raise StatementMissing(
                f"the bundle of a statement cannot be read: {error.strerror}", where=f"statement/{digest.hex()}"
            ) from error
        except OSError as error:
            raise DirectoryAway(f"cannot read a statement: {error.strerror}", where=str(path)) from error

    def settle(self, entries: Iterable[bytes]) -> None:
        """Give the bundles of these entries, which are all, their names; forget those that were never acknowledged.

        Raises DirectoryError when a bundle has its name and no entry: that was there once.
        """
        named = named_statements(entries)
        if orphans := statement_digests(self.root) - named:
            what = f"no entry of the journal names {len(orphans)} of the bundles that lie here: {CUT}"
            where = f"{self.root}/{STATEMENTS}/{min(orphans).hex()}"
            raise DirectoryError(what, where=where, fix="restore the newest copy of the folder")
        for path in (self.root / STATEMENTS).glob(f"*{_NEW}"):
            digest = path.name.removesuffix(_NEW)
            if _STATEMENT.fullmatch(digest) and bytes.fromhex(digest) in named:
                self._settle(bytes.fromhex(digest))
            else:
                remove_file(path)

    def entries(self) -> Iterator[bytes]:
        """Every entry, in order. Raises DirectoryAway."""
        for index in range(self.size):
            yield self.entry(index)

    def close(self) -> None:
        """Make the tiles durable and let go."""
        if not self._broken:
            self._tiles.publish(self._note, durable=True)
        self.release()

    def release(self) -> None:
        """Let go of the folder as it is."""
        self._journal.close()
        self._lock.release()

    def _begin(self, entries: list[bytes] | None) -> None:
        """Derive the tree; a new log starts with the checkpoint of nothing."""
        if entries is None:
            self._journal.write(journal.MAGIC)
            self._write([])
            sync_folder(self.root)
        for entry in entries or ():
            leaf = merkle.leaf_hash(entry)
            self._frontier.append(leaf)
            self._tiles.add(entry, leaf)
        self._note = self._signed(self._frontier)
        self._tiles.publish(self._note, durable=True)

    def _write(self, entries: list[bytes]) -> None:
        """One group: entry frames and the checkpoint over them, synced. Raises OSError with nothing of it kept."""
        frontier, leaves = self._frontier.copy(), [merkle.leaf_hash(entry) for entry in entries]
        for leaf in leaves:
            frontier.append(leaf)
        note, before = self._signed(frontier), self._journal.size
        frames = b"".join(journal.frame(journal.ENTRY, entry) for entry in entries)
        try:
            self._journal.write(frames + journal.frame(journal.CHECKPOINT, note))
        except OSError:
            self._cut(before)
            raise
        try:
            self._journal.sync()
        except OSError as error:
            # After a failed sync nobody knows what the disk holds: nothing more may be promised.
            self._broken = f"cannot sync the journal: {reason(error)}"
            raise
        self._frontier, self._note = frontier, note
        for entry, leaf in zip(entries, leaves, strict=True):
            self._tiles.add(entry, leaf)

    def _settle(self, digest: bytes) -> None:
        """Give a bundle, whose entry is synced, its name. Raises OSError, and nothing more is promised."""
        try:
            rename_file(self._new_statement(digest), self._statement(digest))
        except OSError as error:
            self._broken = f"cannot name a statement's bundle: {reason(error)}"
            raise

    def _cut(self, size: int) -> None:
        try:
            self._journal.cut(size)
        except OSError as error:
            self._broken = f"cannot cut the journal back: {reason(error)}"
            raise

    def _signed(self, frontier: merkle.Frontier) -> bytes:
        return sign(Checkpoint(self.origin, frontier.size, frontier.root), self._key)

    def _nodes(self, kind: str) -> int:
        return self.size >> (0 if kind == "entries" else 8 * int(kind))

    def _subtree(self) -> merkle.Subtree:
        def read(level: int, index: int, width: int) -> bytes:
            try:
                return self.tile(str(level), index)[: 32 * width]
            except OSError as error:
                raise DirectoryAway(f"cannot read a tile: {reason(error)}", where=str(self.root)) from error

        return subtree_of(self.size, read)

    def _statement(self, digest: bytes) -> Path:
        return self.root / STATEMENTS / digest.hex()

    def _new_statement(self, digest: bytes) -> Path:
        return self.root / STATEMENTS / f"{digest.hex()}{_NEW}"


def named_statements(entries: Iterable[bytes]) -> set[bytes]:
    """The digests of the bundles that entries name; of an entry that cannot be read, none."""
    found = set[bytes]()
    for entry in entries:
        try:
            _, body = decode(entry)
        except DirectoryError:
            continue
        if isinstance(body, StatementEntry):
            found.add(body.digest)
    return found


def statement_digests(root: Path) -> set[bytes]:
    """The digests of the bundles that have their name in a directory's folder: each had its entry before."""
    try:
        names = [path.name for path in (root / STATEMENTS).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {bytes.fromhex(name) for name in names if _STATEMENT.fullmatch(name)}


def _recover(folder: ShardFolder, origin: str, key: Ed25519PrivateKey) -> list[bytes] | None:
    """What the journal holds, its torn tail cut off; None when there is no log yet. Raises DirectoryError."""
    published = _published(folder, origin, key)
    data = _journal_of(folder)
    found = journal.parse(data)
    if not found.checkpoints and not published and len(data) < _BEGINNING:
        remove_file(folder.journal)  # it was never begun: nothing was acknowledged
        return None
    where = str(folder.root)
    if not found.checkpoints:
        raise DirectoryError(f"the journal holds no checkpoint: {found.damage}", where=where)
    try:
        last = checkpoint.verify(found.checkpoints[-1].note, origin, raw_public_key(key))
    except TrustError as error:
        raise DirectoryError(f"the log is not this key's: {error.what}", where=where) from error
    covered = found.entries[: found.covered]
    if (last.size, last.root) != (found.covered, merkle.root([merkle.leaf_hash(entry) for entry in covered])):
        raise DirectoryError("the journal's entries are not those of its last checkpoint", where=where)
    if published > last.size:
        what = f"the journal ends at {last.size} entries, but {published} were published: rolled back, or damaged"
        raise DirectoryError(what, where=where, fix="restore the newest copy of the folder")
    if (shown := reach(folder)) > last.size:
        what = f"the journal ends at {last.size} entries, but tiles of {shown} lie here: {CUT}"
        raise DirectoryError(what, where=where, fix="restore the newest copy of the folder")
    if found.length > found.intact:
        replace_file(folder.torn, data[found.intact :], durable=True)
        cut_file(folder.journal, found.intact)
    for path in folder.root.glob(f"*{TEMPORARY}"):
        remove_file(path)
    remove_tree(folder.tiles)
    return covered


def _journal_of(folder: ShardFolder) -> bytes:
    """The journal; nothing when there is none yet. Raises OSError."""
    try:
        return untrusted.read(folder.journal, limit=MAX_JOURNAL_BYTES)
    except FileNotFoundError:
        return b""


def _published(folder: ShardFolder, origin: str, key: Ed25519PrivateKey) -> int:
    """Entries under the published checkpoint; a power cut may have torn it, and then it says nothing."""
    try:
        note = untrusted.read(folder.checkpoint, limit=MAX_NOTE_BYTES)
        return checkpoint.verify(note, origin, raw_public_key(key)).size
    except (FileNotFoundError, TrustError):
        return 0
