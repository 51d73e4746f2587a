"""Writes a shard: what `append` returns for is on the disk, signed, and stays.

Callers prepare their items in their own threads; one committer thread writes what has come
together as one group: payload, sync, entries and a signed checkpoint, sync, answer. Tiles
follow from synced entries only.

>>> import tempfile, time
>>> header = ShardHeader(release=None, image=None, machine_class="x86-64-v3", libraries={}, model="m")
>>> item = Prediction(bytes(16), 0, 1, b"in", b"out", 7, "strict", 1, 2)
>>> with tempfile.TemporaryDirectory() as log, ShardWriter.create(Path(log), header, now=time.time_ns) as writer:
...     writer.append([item]) == [f"{writer.shard_id}.1"]
True
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helix_lineage.errors import ShardError, reason
from helix_lineage.shard.entries import MAX_ENTRY_BYTES, Close
from helix_lineage.shard.header import ShardHeader, prediction_id, shard_id
from helix_lineage.shard.payload_writer import PayloadWriter, PreparedOutput, SegmentPosition
from helix_lineage.shard.prediction import Prediction, entry_of
from helix_lineage.shard.recovery import Recovery, recover_others
from helix_lineage.shard.waiting import Bell, Pending
from helix_lineage.tlog import journal
from helix_lineage.tlog.checkpoint import SHARD_ORIGIN, CheckpointSigner, raw_public_key
from helix_lineage.tlog.disk import (
    AppendFile,
    FolderLock,
    lock_new_folder,
    make_folder,
    probe_room,
    remove_tree,
    rename_folder,
    replace_file,
    sync_folder,
)
from helix_lineage.tlog.layout import NEW_PREFIX, TEMPORARY, ShardFolder
from helix_lineage.tlog.merkle import Frontier
from helix_lineage.tlog.tile_writer import TileWriter

_log = logging.getLogger(__name__)

MAX_GROUP_ITEMS = 1024
PROBE_BYTES = 256 * 1024
"""More than a usual group and its tiles take. A request that needs more is refused by itself."""
PUBLISH_SECONDS = 0.25
"""Tiles lag behind the journal by about this much at most."""


class ShardWriter:
    """The one writer of a new shard. Thread-safe; not to be carried over a fork."""

    def __init__(
        self, folder: ShardFolder, key: Ed25519PrivateKey, file: AppendFile, lock: FolderLock, now: Callable[[], int]
    ) -> None:
        """Use `create`."""
        self.shard_id = folder.id
        self.recovered: tuple[Recovery, ...] = ()
        """What start-up found of dead shards in the same log folder."""
        self.on_sync: Callable[[float], None] = lambda _: None
        """Told the seconds of each sync, in the committer's thread; must not raise."""
        self._folder, self._key, self._journal, self._lock, self._now = folder, key, file, lock, now
        self._signer = CheckpointSigner(SHARD_ORIGIN + folder.id, key)
        self._payload = PayloadWriter(folder)
        self._tiles = TileWriter(folder)
        self._frontier = Frontier()
        self._note = b""
        self._published_at = 0.0
        self._queue: list[Pending] = []
        self._wake = threading.Condition()
        self._bell = Bell(self._wake)
        self._closing = False
        self._broken: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"shard-{folder.id[:8]}", daemon=True)

    @property
    def folder(self) -> Path:
        """Where the shard lies: what a directory is shown of it is read from there, beside this writer."""
        return self._folder.root

    @classmethod
    def create(
        cls,
        log_dir: Path,
        header: ShardHeader,
        *,
        now: Callable[[], int] = time.time_ns,
        release: bytes | None = None,
        promotion: bytes | None = None,
    ) -> ShardWriter:
        """Open a new shard under `log_dir`, and recover dead ones there. Raises ShardError.

        Args:
            now: nanoseconds since 1970.
            release, promotion: the bundles that the server verified; copies stay with the shard.
        """
        key = Ed25519PrivateKey.generate()
        header = replace(header, public_key=raw_public_key(key), started_ns=now())
        entry = header.to_bytes()
        if len(entry) > MAX_ENTRY_BYTES:
            raise ShardError(f"the shard's header has {len(entry)} bytes, more than {MAX_ENTRY_BYTES}")
        try:
            writer = cls._open(log_dir, key, entry, (release, promotion), now)
        except OSError as error:
            raise ShardError(f"cannot open a shard: {reason(error)}", where=str(log_dir)) from error
        writer._thread.start()
        try:
            writer.recovered = tuple(recover_others(log_dir, writer.shard_id, now, writer._tell))
        except BaseException:
            with suppress(ShardError):
                writer.close()
            raise
        return writer

    @classmethod
    def _open(
        cls,
        log_dir: Path,
        key: Ed25519PrivateKey,
        entry: bytes,
        bundles: tuple[bytes | None, bytes | None],
        now: Callable[[], int],
    ) -> ShardWriter:
        """Make the folder under a name that readers ignore; rename it when its first checkpoint is published."""
        make_folder(log_dir)
        final = ShardFolder(log_dir / shard_id(entry))
        new = ShardFolder(log_dir / (NEW_PREFIX + final.id))
        with ExitStack() as undo:
            # Tried again and again on a full disk, it must not fill it further. What has its name already is recovered.
            undo.callback(remove_tree, new.root)
            lock = lock_new_folder(new.root, new.lock)
            undo.callback(lock.release)
            for path, bundle in zip((new.release, new.promotion), bundles, strict=True):
                if bundle is not None:
                    replace_file(path, bundle, durable=True)
            file = AppendFile(new.journal, ahead=journal.AHEAD)
            undo.callback(file.close)
            file.write(journal.MAGIC)
            writer = cls(new, key, file, lock, now)
            writer._append_group([entry])
            writer._publish(durable=True)  # whoever sees a shard sees its checkpoint
            sync_folder(new.root)
            rename_folder(new.root, final.root)
            writer._folder = writer._tiles.folder = final
            writer._payload = PayloadWriter(final)
            undo.pop_all()
        return writer

    @property
    def entries(self) -> int:
        """Entries that are on the disk, the header among them."""
        return self._frontier.size

    def append(self, predictions: Sequence[Prediction]) -> list[str]:
        """Record items; returns their ids when everything is on the disk.

        Raises ShardError when it is not: then none of these items was recorded, and none may be answered.
        """
        if not predictions:
            return []
        pending = self._prepare(predictions, None)
        self._enqueue(pending)
        return self._ids(pending.wait(), len(predictions))

    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        """As `append`, for a coroutine: no thread waits for the disk. One that is cancelled is recorded all the same.

        What goes before the disk (hashing, compressing) is done in the event loop's thread.
        """
        if not predictions:
            return []
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._enqueue(self._prepare(predictions, answer), loop)
        return self._ids(await answer, len(predictions))

    @property
    def broken(self) -> str | None:
        """Why the shard will never take another entry; None while it may."""
        return self._broken

    def probe(self) -> None:
        """Would a group find room on the disk? Writes, syncs and removes a file beside the journal. Raises OSError.

        Nothing enters the log: that a server looked whether it could write is not a fact about a prediction.
        """
        probe_room(self._folder.root / f"probe{TEMPORARY}", PROBE_BYTES)

    def close(self) -> None:
        """Write what waits, then the close entry, and let go of the shard. Raises ShardError; safe to call twice."""
        with self._wake:
            already, self._closing = self._closing, True
            self._wake.notify_all()
        self._thread.join()
        if already:
            return
        try:
            self._payload.close()
            self._journal.close()
            self._lock.release()
        except OSError as error:
            raise ShardError(f"cannot close the shard: {reason(error)}", where=self.shard_id) from error
        if self._broken:
            raise ShardError(f"the shard ended without a close entry: {self._broken}", where=self.shard_id)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, predictions: Sequence[Prediction], answer: asyncio.Future[int] | None) -> Pending:
        """Everything that needs no place in the log. Raises ShardError."""
        prepare = self._payload.prepare
        items = [prepare(item.request_id, item.input, item.output, alone=item.count == 1) for item in predictions]
        entries = [entry_of(item, prepared) for item, prepared in zip(predictions, items, strict=True)]
        return Pending(entries, items, answer)

    def _ids(self, first: int, count: int) -> list[str]:
        return [prediction_id(self.shard_id, sequence) for sequence in range(first, first + count)]

    def _enqueue(self, pending: Pending, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Hand over to the committer, called now or after the turn of a loop. Raises ShardError when there is none."""
        with self._wake:
            if self._closing or self._broken:
                raise ShardError(f"the shard takes no entries: {self._broken or 'closed'}", where=self.shard_id)
            self._queue.append(pending)
        self._bell.ring(loop)

    def _run(self) -> None:
        """The committer thread."""
        try:
            while self._step():
                pass
        except BaseException as error:  # a dead committer must not leave callers waiting
            self._break(f"{type(error).__name__}: {error}")
            _log.exception("shard %s: the committer died", self.shard_id)

    def _step(self) -> bool:
        """Wait, commit one group, publish when due; False when closed."""
        with self._wake:
            behind = self._tiles.published < self._tiles.size
            self._wake.wait_for(lambda: self._queue or self._closing, timeout=PUBLISH_SECONDS if behind else None)
            group = self._take()
            closing = self._closing and not self._queue
        if group:
            self._commit(group)
        if closing:
            self._finish()
            return False
        late = time.monotonic() - self._published_at >= PUBLISH_SECONDS
        if self._tiles.published < self._tiles.size and (late or not group):
            self._try_publish()
        return True

    def _take(self) -> list[Pending]:
        """The next group; at least one when any waits."""
        taken, count = 0, 0
        while taken < len(self._queue) and (not taken or count + len(self._queue[taken].entries) <= MAX_GROUP_ITEMS):
            count += len(self._queue[taken].entries)
            taken += 1
        group, self._queue = self._queue[:taken], self._queue[taken:]
        return group

    def _commit(self, group: list[Pending]) -> None:
        """Write a group; answers its callers either way."""
        first = self._frontier.size
        sequence, items = first, []
        for pending in group:
            items += [(sequence + offset, item) for offset, item in enumerate(pending.items or ())]
            sequence += len(pending.entries)
        try:
            if self._broken:
                raise ShardError(f"the shard takes no entries: {self._broken}", where=self.shard_id)
            self._write(items, group)
        except Exception as error:
            failure = error if isinstance(error, ShardError) else ShardError(str(error), where=self.shard_id)
            Pending.refuse(group, failure)
            return
        Pending.accept(group, first)

    def _write(self, items: list[tuple[int, PreparedOutput]], group: list[Pending]) -> None:
        """Payload, sync, entries and checkpoint, sync. Raises ShardError with nothing of it left behind."""
        mark = None
        try:
            mark = self._payload.write(items) if items else None
        except OSError as error:
            raise ShardError(f"cannot write the payload: {reason(error)}", where=self.shard_id) from error
        except ShardError as error:
            raise self._break(error.what) from error
        try:
            self._sync(self._payload.sync)
        except OSError as error:
            raise self._break(f"cannot sync the payload: {reason(error)}") from error
        try:
            self._append_prepared(group)
        except OSError as error:
            if mark is not None:
                self._undo_payload(mark)
            raise ShardError(f"cannot write the journal: {reason(error)}", where=self.shard_id) from error
        except ShardError:
            raise
        except Exception as error:
            # Not the disk's fault but ours: what stands in the files is unclear, so nothing may follow it.
            raise self._break(f"{type(error).__name__}: {error}") from error
        self._payload.settle()

    def _append_group(self, entries: list[bytes]) -> None:
        """Entries that nobody waits for."""
        self._append_prepared([Pending(entries, None)])

    def _append_prepared(self, group: list[Pending]) -> None:
        """Entry frames and one checkpoint in one write, then sync. Raises OSError when nothing of it was kept."""
        frontier = self._frontier.copy()
        for pending in group:
            frontier.extend(pending.leaves)
        note = self._signer.sign(frontier.size, frontier.root)
        before, frames = self._journal.size, [pending.frames for pending in group]
        try:
            self._journal.write(b"".join([*frames, journal.frame(journal.CHECKPOINT, note)]))
        except OSError:
            try:
                self._journal.cut(before)
            except OSError as error:
                raise self._break(f"cannot cut the journal back: {reason(error)}") from error
            raise
        try:
            self._sync(self._journal.sync)
        except OSError as error:
            # After a failed sync nobody knows what the disk holds: nothing more may be promised.
            raise self._break(f"cannot sync the journal: {reason(error)}") from error
        self._frontier, self._note = frontier, note
        for pending in group:
            for entry, leaf in zip(pending.entries, pending.leaves, strict=True):
                self._tiles.add(entry, leaf)

    def _sync(self, sync: Callable[[], None]) -> None:
        began = time.perf_counter()
        sync()
        self.on_sync(time.perf_counter() - began)

    def _undo_payload(self, mark: SegmentPosition) -> None:
        try:
            self._payload.undo(mark)
        except OSError as error:
            raise self._break(f"cannot cut the payload back: {reason(error)}") from error

    def _break(self, why: str) -> ShardError:
        """Accept nothing more; whoever waits is told."""
        with self._wake:
            self._broken = self._broken or why
            waiting, self._queue = self._queue, []
        error = ShardError(f"the shard takes no more entries: {why}", where=self.shard_id, fix="open a new shard")
        Pending.refuse(waiting, error)
        return error

    def _try_publish(self) -> None:
        try:
            self._publish(durable=False)
        except OSError as error:
            # Tiles are derived: they may come later. The journal holds what was acknowledged.
            _log.warning("shard %s: cannot publish tiles: %s", self.shard_id, error)

    def _publish(self, *, durable: bool) -> None:
        self._published_at = time.monotonic()
        self._tiles.publish(self._note, durable=durable)

    def _finish(self) -> None:
        """The ends of the files, the close entry, and the last tiles."""
        try:
            if not self._broken:
                self._payload.trim()
                self._journal.trim()  # a shard with a close entry has no zeros, whenever its process dies
                self._append_group([Close(self._now()).to_bytes()])
                self._publish(durable=True)
        except (OSError, ShardError) as error:
            self._break(str(error))

    def _tell(self, entry: bytes) -> str:
        """Record what was found of another shard; gives the entry's id."""
        told = Pending([entry], None)
        self._enqueue(told)
        return prediction_id(self.shard_id, told.wait())
