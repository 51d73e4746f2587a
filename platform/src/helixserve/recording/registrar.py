"""Tells the directory of this server's shards: before they are used, while they grow, and when they end.

A shard that the directory has not taken answers nothing. One that it has taken goes on while the
directory is away; what was missed is sent when it is back. What is sent is read from the shard's
folder, so requests lose no time by it, and what an earlier process of this folder could not send
any more is sent by the next one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import evidence
from helix_lineage.directory.admission import read_token
from helix_lineage.directory.client import DirectoryClient
from helix_lineage.errors import DirectoryAway, DirectoryRefusal, LineageError, RegistrantUnknown
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log, Shard
from helixserve.errors import NotReadyError

logger = logging.getLogger("helixserve.registrar")

WHERE = "HELIX_DIRECTORY"
TOKEN = "HELIX_DIRECTORY_TOKEN_FILE"  # noqa: S105  a variable's name
INTERVAL_S = 2.0
"""How often a checkpoint is sent, at most."""
RETRY_MOST_S = 5.0
"""The longest wait after a failure; it starts at a quarter of a second and doubles."""
LAST_WORD_S = 5.0
"""How long a server that ends tries to tell of it."""
_ADOPTED = 100
"""Of earlier shards in the folder, the newest so many are looked at."""


@dataclass(slots=True)
class _Followed:
    """A shard, and how far the directory knows it."""

    folder: Path
    taken: int
    closed: bool = False


class Registrar:
    """One directory, and the shards of one server there.

    Args:
        url: base URL of the directory.
        trust: names the directory and its key.
        statements: signed bundles that the shards' headers name: the release, the promotion.
        token: the file of the token that registers shards; read at each registration, so that it may be replaced.
    """

    def __init__(
        self,
        url: str,
        trust: Trust,
        statements: Sequence[bytes],
        *,
        token: Path | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._token = token
        self._client = DirectoryClient(url, trust, token=None if token is None else lambda: read_token(token))
        self._statements, self._interval_s = list(statements), interval_s
        self._followed: list[_Followed] = []
        self._unsure: Path | None = None
        """A shard that was shown and not admitted: the directory may have taken it all the same."""
        self._lock = threading.Lock()  # of the client and the list
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        """Why the directory does not know the newest yet; None while all is well."""

    def admit(self, writer: ShardWriter) -> None:
        """Register a new shard before it is used. Raises NotReadyError while the directory does not take it."""
        with self._lock:
            try:
                for bundle in self._statements:
                    self._client.submit(bundle)
                self._unsure = writer.folder
                receipt = self._client.take(evidence.registration(Shard(writer.folder)))
            except LineageError as error:
                self.problem = error.what
                mine = isinstance(error, RegistrantUnknown) or error.where == str(self._token)
                raise NotReadyError(
                    f"the shard cannot be registered: {error.what}", where=TOKEN if mine else WHERE, fix=error.fix
                ) from error
            self.problem, self._unsure = None, None
            self._followed.append(_Followed(writer.folder, 1))
            logger.info("shard %s is entry %d of the directory", writer.shard_id, receipt.index)
            if self._thread is None:
                self._adopt(writer.folder.parent)
                self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Tell of the ends of the shards, for a few seconds at most, and stop."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self._withdraw()
        until = time.monotonic() + LAST_WORD_S
        wait = 0.25
        while not self._tell() and time.monotonic() + wait < until:
            time.sleep(wait)
            wait *= 2
        if self.problem:
            logger.warning("the directory does not know the end of a shard; the next server here tells it")
        self._client.close()

    def _withdraw(self) -> None:
        """Follow a shard that never served to its end too, if the directory took it and its answer was lost."""
        if self._unsure is None:
            return
        with contextlib.suppress(LineageError):
            known = self._client.state(self._unsure.name)
            if known is not None:
                self._followed.append(_Followed(self._unsure, known.size, known.closed))

    def _run(self) -> None:
        wait = self._interval_s
        while not self._ending.wait(wait):
            wait = self._interval_s if self._tell() else min(2 * max(wait, 0.25), RETRY_MOST_S)

    def _tell(self) -> bool:
        """Send what the directory does not know yet; whether it knows everything now."""
        with self._lock:
            for shard in list(self._followed):
                try:
                    self._catch_up(shard)
                except DirectoryAway as error:
                    self._complain(error)
                    return False
                except Exception as error:  # whatever it is, serving goes on, and it is tried again
                    self._complain(error)
                    if shard is self._followed[-1]:
                        return False
            # All but the newest are done with: they are closed, or ended without a close entry.
            self._followed = [shard for shard in self._followed[-1:] if not shard.closed]
            if self.problem is not None:
                logger.warning("the directory knows everything again")
            self.problem = None
            return True

    def _catch_up(self, followed: _Followed) -> None:
        """Send the newest checkpoint, or the end, of one shard. Raises LineageError."""
        shard = Shard(followed.folder)
        if followed.closed or shard.published[1].size <= followed.taken:
            return
        try:
            if shard.ended:
                self._client.take(evidence.ending(shard, followed.taken))
                followed.closed = True
            elif (newer := evidence.advance(shard, followed.taken)) is not None:
                self._client.take(newer)
        except DirectoryRefusal:
            # An answer may have been lost: then the directory is further than we thought, and the proof began wrong.
            known = self._client.state(shard.id)
            if known is None or not followed.taken < known.size <= shard.published[1].size:
                raise
            followed.taken, followed.closed = known.size, known.closed
            return
        followed.taken = shard.published[1].size

    def _adopt(self, log: Path) -> None:
        """Follow shards of earlier processes until the directory knows their ends."""
        own = {shard.folder.name for shard in self._followed}
        # Shards only: what else lies there (a folder that another process is making) may be gone when it is looked at.
        shards = [log / name for name in Log(log).shard_ids()]
        for path in sorted(shards, key=lambda path: path.stat().st_mtime)[-_ADOPTED:]:
            if path.name in own:
                continue
            try:
                known = self._client.state(path.name)
                if known is not None and not known.closed and not Shard(path).live:
                    self._followed.insert(0, _Followed(path, known.size))
            except LineageError as error:
                logger.warning("shard %s: its end cannot be told to the directory: %s", path.name, error)

    def _complain(self, error: Exception) -> None:
        what = error.what if isinstance(error, LineageError) else f"{type(error).__name__}: {error}"
        if self.problem != what:
            logger.error("the directory does not know the newest entries: %s", what)
        self.problem = what
