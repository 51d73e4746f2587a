"""Writes every item to the process's shard before its answer leaves.

The process owns its shard: it alone holds the signing key, in memory. What cannot be written is
refused, never served unrecorded. After a failure `mend` makes the recorder whole again: where the
writer cut a short write off, the same shard goes on; where nobody knows what the disk holds (a
failed sync), the shard ends and a new one begins.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import platform
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from helix_lineage.errors import LineageError, reason
from helix_lineage.shard import Prediction, ShardHeader, ShardWriter
from helix_lineage.tlog.layout import ShardFolder
from helixserve.errors import HelixServeError, UnrecordedError
from helixserve.integrity.readiness import VerifiedImage

logger = logging.getLogger("helixserve.recorder")

_COMPUTING = ("numpy", "onnxruntime", "gemmi", "safetensors")
"""Distributions whose code can change an answer's bits; the header names those that are installed."""

_LOOP_BYTES = 256 * 1024
"""More than this is hashed and compressed in a thread, not in the event loop: its milliseconds are everybody's."""

Admit = Callable[[ShardWriter], None]


class Recorder:
    """The shard that is being written, and the next one when it must end.

    Args:
        create: opens a new shard. Raises LineageError or OSError.
        admit: see `open`.
    """

    def __init__(self, create: Callable[[], ShardWriter], admit: Admit | None = None) -> None:
        self.on_sync: Callable[[float], None] = lambda _: None
        """Told how many seconds each sync takes, in the thread that syncs."""
        self._create = create
        self._admit = admit
        self._writer: ShardWriter | None = None
        self._admitted = False
        self._closed = False
        self._large = ThreadPoolExecutor(2, thread_name_prefix="helix-record")
        self._lock = threading.Lock()  # of what `mend` and `close` change
        self.failure: HelixServeError | None = UnrecordedError("no shard is open yet", where="log")
        """Why nothing can be recorded now; None while all is well."""

    @classmethod
    def open(
        cls,
        log: Path,
        verified: VerifiedImage,
        machine: str,
        *,
        now: Callable[[], int] = time.time_ns,
        admit: Admit | None = None,
    ) -> Self:
        """Begin a shard in the folder `log`. Never raises for the log's state: `failure` says, `mend` tries again.

        Args:
            now: nanoseconds since 1970.
            admit: called with each new shard's writer before that takes a prediction; may raise
                HelixServeError, then nothing is recorded, and the same writer is shown to it again later.
        """
        promotion = verified.promotion
        header = ShardHeader(
            release=verified.release.digest,
            promotion=None if promotion is None else promotion.verified.promotion.digest,
            generation=0 if promotion is None else promotion.verified.generation,
            mode="local" if promotion is None else "promoted",
            image=verified.image,
            machine_class=machine,
            libraries=libraries(),
            model=verified.contract.name,
        )

        def create() -> ShardWriter:
            if log.is_symlink():
                raise UnrecordedError("the log folder is a link", where=str(log), fix="mount the folder itself")
            log.mkdir(parents=True, exist_ok=True)
            bundle = None if promotion is None else promotion.bundle
            return ShardWriter.create(log, header, now=now, release=verified.bundle, promotion=bundle)

        recorder = cls(create, admit)
        recorder.mend()
        return recorder

    @property
    def shard(self) -> str | None:
        """The shard's id, 32 hex digits; None while none is open."""
        writer = self._writer
        return None if writer is None else str(writer.shard_id)

    def measure(self) -> tuple[int, int]:
        """Entries of the shard, and bytes of its journal and payload with the zeros that are preallocated."""
        writer = self._writer
        if writer is None:
            return 0, 0
        folder = ShardFolder(writer.folder)
        files = [folder.journal, *folder.segments()]
        return writer.entries, sum(path.stat().st_size for path in files if path.exists())

    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        """Prediction ids, once everything is on disk. Raises UnrecordedError when it cannot be.

        What is cancelled once it has begun is recorded all the same, and its ids are told to nobody.
        """
        writer = self._writer
        if writer is None or not self._admitted:
            raise self.failure or UnrecordedError("no shard is open", where="log")
        try:
            if sum(len(item.input) + len(item.output) for item in predictions) > _LOOP_BYTES:
                return await asyncio.get_running_loop().run_in_executor(self._large, writer.append, predictions)
            return await writer.append_soon(predictions)
        except (LineageError, OSError) as error:
            logger.exception("the shard %s cannot be written", writer.shard_id)
            withheld = "the answer could not be recorded, so it is withheld"
            refused = UnrecordedError(withheld, where="log", fix="retry at another replica")
            if writer is self._writer:  # else it told of a shard that was replaced meanwhile
                self.failure = UnrecordedError(f"the last answer could not be recorded: {reason(error)}", where="log")
            raise refused from error

    def mend(self) -> None:
        """Make recording possible again, if it is not; `failure` says what is still in the way. Blocks on the disk."""
        with self._lock:
            if self.failure is None or self._closed:
                return
            try:
                self._open_or_probe()
            except HelixServeError as error:
                self.failure = error
            except (LineageError, OSError) as error:
                self.failure = UnrecordedError(f"cannot record: {reason(error)}", where="log")
            except Exception as error:  # whatever `admit` did wrong: it is tried again, and never thought admitted
                logger.exception("a shard cannot be opened")
                self.failure = UnrecordedError(f"cannot record: {error}", where="log")
            else:
                logger.info("shard %s records", self.shard)
                self.failure = None

    def close(self) -> None:
        """End the shard with its close entry. What cannot be written now is recovered at the next start."""
        self._large.shutdown()
        with self._lock:
            self._closed = True
            if self._writer is not None:
                self._end(self._writer)

    def _open_or_probe(self) -> None:
        """A shard that is open, admitted, and finds room. Raises HelixServeError, LineageError or OSError."""
        writer = self._writer
        if writer is not None and writer.broken is not None:
            self._end(writer)  # lets go of its lock, so that the new shard can recover it
            self._writer, writer = None, None
        if writer is None:
            self._admitted = False
            self._writer = writer = self._create()
            writer.on_sync = self._synced
        elif self._admitted:
            writer.probe()
        if not self._admitted:
            if self._admit is not None:
                self._admit(writer)
            self._admitted = True

    def _synced(self, seconds: float) -> None:
        self.on_sync(seconds)

    def _end(self, writer: ShardWriter) -> None:
        try:
            writer.close()
        except LineageError as error:
            logger.warning("shard %s: %s; the next one recovers it", writer.shard_id, error)


def libraries() -> dict[str, str]:
    """Name → version of what computes here."""
    found = {"python": platform.python_version(), "libc": " ".join(platform.libc_ver())}
    for name in _COMPUTING:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
