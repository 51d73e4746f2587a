"""The errors of `helix_lineage`, and the root of all that Helix raises.

HelixError  what happened, where, and how to mend it; also the root of HelixServeError and PipelineError
└── LineageError
    ├── CanonicalError      a value has no canonical form, or bytes are not canonical
    ├── RecordError         a record is malformed, of an unknown type, or misses a parent or parameter
    ├── StoreError          a blob or record is absent or does not match its digest
    ├── TrustError          a key, role, signature or validity period does not hold
    ├── ShardError          a shard cannot be written or read
    ├── PredictionNotFound  no entry with that prediction id
    ├── DirectoryError      a directory's log or request is malformed, or cannot be read or written
    │   ├── DirectoryRefusal  the directory does not take this, and says why
    │   ├── StatementMissing  the bundle that an entry of the directory names is absent, or is another one
    │   ├── RegistrantUnknown  who wants to register a shard shows no token that the directory knows
    │   └── DirectoryAway     the directory cannot be reached now
    │       └── DirectoryBusy   it was asked for more than it takes in that time
    └── ReplayError         a prediction cannot be replayed (its payload, image or release is missing)

Every error says what happened, and where and how to mend it when that is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_COMMAND = re.compile(r"(helix|helix-lineage|make|apt-get|git|pip|chmod|rm|dvc|qemu-x86_64) ")
"""How a fix begins that can be typed; any other is a sentence."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Text that a terminal, a log and JSON can hold: what names of files may else hold is escaped.

    >>> print(printable("a\udcff\x1b[2J"))
    a\udcff\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def reason(error: Exception) -> str:
    """Why, in words: what the system says without its number.

    >>> reason(OSError(28, "No space left on device", "/log/journal"))
    'No space left on device: /log/journal'
    """
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"


class HelixError(Exception):
    """Root of every package's errors.

    Args:
        what: one sentence that says what happened.
        where: the file, digest, field or stage concerned.
        fix: the one command that mends it, or what the caller can do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        what = printable(what, keep="\n\t")
        super().__init__(what)
        self.what = what
        self.where = None if where is None else printable(where)
        self.fix = None if fix is None else printable(fix)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        mend = f"; {'run: ' if _COMMAND.match(self.fix) else ''}{self.fix}" if self.fix else ""
        return f"{self.what}{place}{mend}"


@contextmanager
def explaining(
    kind: Callable[..., HelixError], what: str, *, where: str | None = None, fix: str | None = None
) -> Iterator[None]:
    """Let an OSError inside become an error of `kind`: what could not be done, the system's reason, and where."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror}", where=where, fix=fix) from error


class LineageError(HelixError):
    """Root of the package's errors."""


class CanonicalError(LineageError):
    """A value has no canonical form, or bytes are not in canonical form."""


class RecordError(LineageError):
    """A record is malformed, of an unknown type, or misses a parent or parameter."""


class StoreError(LineageError):
    """A blob or record is absent, or its bytes do not match its digest."""


class TrustError(LineageError):
    """A key, role, signature or validity period does not hold."""


class ShardError(LineageError):
    """A shard cannot be written or read."""


class PredictionNotFound(LineageError):
    """No entry has that prediction id."""


class DirectoryError(LineageError):
    """A directory's log or a request to it is malformed, or the log cannot be read or written."""


class DirectoryRefusal(DirectoryError):
    """The directory does not take this, and says why."""


class StatementMissing(DirectoryError):
    """The bundle that an entry of the directory names is absent, or is another one: what it says is unknown."""


class RegistrantUnknown(DirectoryError):
    """Who wants to register a shard shows no token that the directory knows."""


class DirectoryAway(DirectoryError):
    """The directory cannot be reached, or cannot write, now."""


class DirectoryBusy(DirectoryAway):
    """The directory was asked for more than it takes in that time.

    Args:
        retry_s: when to ask again, in seconds.
    """

    def __init__(self, what: str, retry_s: float, *, where: str | None = None) -> None:
        super().__init__(what, where=where)
        self.retry_s = retry_s


class ReplayError(LineageError):
    """A prediction cannot be replayed: its payload, image or release is missing."""
