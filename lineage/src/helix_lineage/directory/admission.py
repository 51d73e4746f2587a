"""Who may register shards, and how many at a time (FORMAT.md 11.5).

A registrant shows a token: `Authorization: Bearer TOKEN`. The directory's file of registrants holds a line a
registrant, its name and the SHA-256 of its token; what follows `#` is a note. It is read at each registration,
so that a mounted file can be changed while the directory runs. It holds no secret: a token is random, and its
digest opens nothing. Tokens stand in no log and in no message.

>>> token = new_token()
>>> Registrants.parse(line("laptop", token)).who([f"Bearer {token}"])
'laptop'
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from helix_lineage.directory.entries import Advance, Ending, Entry, Registration
from helix_lineage.directory.rules import DirectoryState
from helix_lineage.errors import DirectoryBusy, DirectoryError, RegistrantUnknown
from helix_lineage.formats import untrusted
from helix_lineage.shard.header import shard_id

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{32,512}")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})\s+([0-9a-f]{64})")
_FILE_BYTES = 1_000_000
_SECOND = 10**9
_HOUR = 3600 * _SECOND


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_hex(32)


def line(name: str, token: str) -> str:
    """A registrant's line in the directory's file."""
    return f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"


def read_token(path: Path) -> str:
    """A registrant's token, a file that others cannot read. Raises DirectoryError.

    The group may read it: that is how Kubernetes mounts a secret for a numbered user.
    """
    text = _read(path, "the directory's token")
    if path.stat().st_mode & 0o007:
        raise DirectoryError("others can read the directory's token", where=str(path), fix=f"chmod 600 {path}")
    if not _TOKEN.fullmatch(text.strip()):
        what = "the directory's token is not 32 to 512 characters of A-Z a-z 0-9 . _ ~ + / -"
        raise DirectoryError(what, where=str(path), fix="helix keys init")
    return text.strip()


@dataclass(frozen=True, slots=True)
class Registrants:
    """Who may register shards."""

    digests: dict[str, str]
    """Name → SHA-256 of the token, 64 hex digits."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises DirectoryError."""
        try:
            return cls.parse(_read(path, "the file of registrants"))
        except DirectoryError as error:
            raise DirectoryError(error.what, where=str(path), fix="helix keys init") from error

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of the file's text. Raises DirectoryError."""
        digests: dict[str, str] = {}
        for number, row in enumerate(text.splitlines(), start=1):
            said = row.partition("#")[0].strip()
            if not said:
                continue
            found = _LINE.fullmatch(said)
            if found is None:
                raise DirectoryError(f"line {number} of the file of registrants is not a name and a SHA-256")
            if found[1] in digests:
                raise DirectoryError(f"line {number} of the file of registrants names {found[1]} again")
            digests[found[1]] = found[2]
        return cls(digests)

    def who(self, authorization: Sequence[str]) -> str:
        """Whose token the Authorization headers show. Raises RegistrantUnknown."""
        scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
        shown = hashlib.sha256(token.strip().encode()).hexdigest() if scheme.lower() == "bearer" else ""
        # Every line is compared, and in constant time: how long it takes tells nothing.
        found = [name for name, digest in self.digests.items() if hmac.compare_digest(shown, digest)]
        if not found:
            raise RegistrantUnknown(
                "no token that this directory knows: shards are registered by its registrants only",
                where="authorization", fix="set HELIX_DIRECTORY_TOKEN_FILE to a registrant's token",
            )  # fmt: skip
        return found[0]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a directory takes."""

    registrations: int = 60
    """Of one registrant: so many at once, and so many a minute."""
    checkpoints: int = 300
    """Of one shard in a minute; its close is always taken."""
    pending_each: int = 250
    """Shards of one registrant that were registered within an hour, and that the directory saw no other entry of."""
    pending: int = 1000
    """The same, of all registrants."""


class Limiter:
    """Refuses what goes beyond the bounds, until it has room again. Not thread-safe.

    Args:
        book: what was taken so far. Who registered it is not known any more: it counts for all together.
    """

    def __init__(self, bounds: Bounds, book: DirectoryState) -> None:
        self._bounds, self._book = bounds, book
        self._buckets: dict[str, tuple[float, int]] = {}
        """Registrant → registrations that it may make, as of that time."""
        self._pending = {shard.id: ("", shard.time_ns) for shard in book.shards.values() if shard.size == 1}
        """Shard that has not served → who registered it, and when; oldest first."""
        self._counts = Counter(registrant for registrant, _ in self._pending.values())
        """Registrant → its shards of these."""

    def charge(self, body: Entry, registrant: str, at: int) -> None:
        """Count what the rules let in. Raises DirectoryBusy when it is too much now.

        Args:
            at: the entry's time.
        """
        if isinstance(body, Registration):
            name = shard_id(body.header)
            self._forget(name)  # if it was charged before, and could not be kept
            self._check_pending(registrant, at)
            self._draw(registrant, at)
            self._pending[name] = registrant, at
            self._counts[registrant] += 1
        elif isinstance(body, Advance | Ending):
            if isinstance(body, Advance):
                self._check_pace(body.shard, at)
            self._forget(body.shard)

    def _check_pace(self, shard: str, at: int) -> None:
        seen, most = self._book.shards[shard].seen, self._bounds.checkpoints
        if len(seen) >= most and (wait := seen[-most][1] + 60 * _SECOND - at) > 0:
            raise DirectoryBusy(f"the shard sent {most} checkpoints in a minute", wait / _SECOND, where=shard)

    def _draw(self, registrant: str, at: int) -> None:
        most = self._bounds.registrations
        left, since = self._buckets.get(registrant, (float(most), at))
        left = min(float(most), left + (at - since) * most / (60 * _SECOND))
        if left < 1:
            self._buckets[registrant] = left, at
            raise DirectoryBusy(
                f"{registrant} registers more than {most} shards a minute", (1 - left) * 60 / most, where=registrant
            )
        self._buckets[registrant] = left - 1, at

    def _check_pending(self, registrant: str, at: int) -> None:
        for shard in [*itertools.takewhile(lambda name: self._pending[name][1] <= at - _HOUR, self._pending)]:
            self._forget(shard)
        mine, every = self._counts[registrant], len(self._pending)
        if mine >= self._bounds.pending_each:
            since = next(time_ns for who, time_ns in self._pending.values() if who == registrant)
            raise _full(f"{mine} shards of {registrant}", since, at)
        if every >= self._bounds.pending:
            raise _full(f"{every} shards", next(iter(self._pending.values()))[1], at)

    def _forget(self, shard: str) -> None:
        if (found := self._pending.pop(shard, None)) is not None:
            self._counts[found[0]] -= 1


def _full(whose: str, since: int, at: int) -> DirectoryBusy:
    wait = (since + _HOUR - at) / _SECOND
    return DirectoryBusy(f"{whose} were registered within an hour, and have not served yet", wait)


def _read(path: Path, what: str) -> str:
    try:
        return untrusted.read(path, limit=_FILE_BYTES, follow=True).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        # Without the path, which is nobody's business over HTTP, and without the bytes, which may be a secret.
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise DirectoryError(f"cannot read {what}: {why}", where=str(path), fix="helix keys init") from None
