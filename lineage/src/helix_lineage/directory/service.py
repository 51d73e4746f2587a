"""The directory: takes requests, decides by the rules, keeps, and answers with a receipt.

Storage and rules under one lock; knows no HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from helix_lineage.attestations.trust import Trust, key_id_of
from helix_lineage.directory import bundles, entries, rules
from helix_lineage.directory.admission import Bounds, Limiter
from helix_lineage.directory.receipt import ROLE, DirectoryReceipt, ShardState
from helix_lineage.directory.storage import DirectoryLog
from helix_lineage.errors import DirectoryAway, DirectoryError, DirectoryRefusal, StatementMissing, reason
from helix_lineage.formats import untrusted
from helix_lineage.tlog.checkpoint import DIRECTORY_ORIGIN

_KEY_BYTES = 64 * 1024


def load_key(path: Path) -> Ed25519PrivateKey:
    """The directory's key, a PEM file that only its owner can read. Raises DirectoryError."""
    try:
        data = untrusted.read(path, limit=_KEY_BYTES, follow=True)
        if path.stat().st_mode & 0o077:
            raise DirectoryError("others can read the directory's key", where=str(path), fix=f"chmod 600 {path}")
        key = load_pem_private_key(data, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = f"cannot read the directory's key: {error.strerror if isinstance(error, OSError) else error}"
        raise DirectoryError(what, where=str(path), fix="helix keys init") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DirectoryError("the directory's key is not an Ed25519 key", where=str(path))
    return key


def origin_of(key: Ed25519PrivateKey, trust: Trust, at: datetime) -> str:
    """The log's name: that under which the trust root knows the key. Raises TrustError."""
    found = trust.key_for(ROLE, at, key_id_of(key.public_key()))
    return DIRECTORY_ORIGIN + found.builder


class Directory:
    """One directory. Thread-safe."""

    def __init__(
        self,
        root: Path,
        origin: str,
        key: Ed25519PrivateKey,
        trust: Trust,
        *,
        now: Callable[[], int] = time.time_ns,
        environments: Iterable[str] = (),
        bounds: Bounds | None = None,
    ) -> None:
        """Begin, or go on with, the log in the folder `root`.

        Raises DirectoryError, and StatementMissing when a statement that was taken is not there: what it
        revoked would be forgotten.

        Args:
            environments: register only what was promoted into one of these; anything when there are none.
            bounds: how much is taken in a time; None: any number.
        """
        self._log = DirectoryLog.open(root, origin, key)
        self.origin = origin
        self._now = now
        self._lock = threading.Lock()
        self.book = rules.DirectoryState(trust, frozenset(environments))
        try:
            self._remember()
        except BaseException:
            self._log.release()
            raise
        self._limiter = None if bounds is None else Limiter(bounds, self.book)

    @property
    def note(self) -> bytes:
        """The newest signed checkpoint."""
        return self._log.note

    def take(
        self, body: entries.Entry, *, bundle: bytes | None = None, seen: int = 0, registrant: str = ""
    ) -> DirectoryReceipt:
        """Take a request, or say which entry holds it already.

        Raises DirectoryRefusal with the reason, DirectoryAway when it cannot be kept, DirectoryBusy when it is too
        much now.

        Args:
            registrant: who registers a shard, proven before.
            seen: size of the checkpoint that the client holds; the receipt proves that the log only grew since.
        """
        with self._lock:
            if seen > self._log.size:
                raise DirectoryRefusal(f"you hold a checkpoint of {seen} entries, and there are {self._log.size}")
            at = max(self._now(), self.book.time_ns)
            index = self.book.decide(body, at, bundle)
            if index is None:
                # Counted once the rules let it in: who has not a shard's key cannot use up what it may send.
                if self._limiter is not None:
                    self._limiter.charge(body, registrant, at)
                entry = body.entry(at)
                index = self._log.append(entry, bundle)
                self.book.apply(entry, bundle)
            return self._receipt(index, seen)

    def state(self, shard: str) -> ShardState:
        """How far a shard has come. Raises DirectoryRefusal when it is not registered."""
        with self._lock:
            known = self.book.shards.get(shard)
            if known is None:
                raise DirectoryRefusal("the shard is not registered here", where=shard)
            return ShardState(known.size, known.root, known.last, known.closed)

    def close(self) -> None:
        """Let go of the folder."""
        with self._lock:
            self._log.close()

    def _remember(self) -> None:
        """Every entry of the log, with its bundle. Raises DirectoryError, StatementMissing naming every one."""
        lost: list[StatementMissing] = []
        held = list(self._log.entries())
        self._log.settle(held)
        for entry in held:
            _, body = entries.decode(entry)
            try:
                bundle = self._log.statements(body.digest) if isinstance(body, entries.StatementEntry) else None
                self.book.apply(entry, bundle)
            except StatementMissing as error:
                lost.append(error)
        if lost:
            raise bundles.missing(lost, str(self._log.root))

    def _receipt(self, index: int, seen: int) -> DirectoryReceipt:
        try:
            self._log.publish()
        except OSError as error:
            raise DirectoryAway(f"cannot write the tiles: {reason(error)}") from error
        consistency = self._log.prove_consistency(seen) if seen else []
        return DirectoryReceipt(
            index,
            self._log.entry(index),
            tuple(self._log.prove_inclusion(index)),
            self._log.note,
            tuple(consistency),
        )
