"""Looks at every file of the image in a process of its own, while this one imports what it serves with.

Both take a second of one core. A thread would not do: opening nine thousand files and importing
are the interpreter's work, and it does one at a time. What the look found counts only for the list
of files that the release names; without a look, or when it died, the files are looked at afterwards.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from helix_lineage.formats.canonical import digest_bytes
from helixserve.errors import NotReadyError
from helixserve.integrity.manifest import ImageFiles, read_list
from helixserve.settings import Settings


@dataclass(frozen=True, slots=True)
class PrehashResult:
    """What a look found. It counts for its own list of files alone."""

    digest: str
    """Of the list."""
    seen: Mapping[str, Sequence[int]]
    """What `ImageFiles` takes as `seen`."""
    what: str | None
    """What is wrong; None when nothing is."""
    where: str | None

    def by(self, digest: str) -> Mapping[str, Sequence[int]] | None:
        """`seen`, if the list is the one of that digest, else None. Raises NotReadyError for what is wrong."""
        if self.digest != digest:
            return None
        if self.what is not None:
            raise NotReadyError(self.what, where=self.where)
        return self.seen


@dataclass(frozen=True, slots=True)
class _Prehash:
    process: multiprocessing.process.BaseProcess
    found: Connection


_started: list[_Prehash] = []


def start(settings: Settings) -> None:
    """Start looking. The process must have no second thread yet."""
    context = multiprocessing.get_context("fork")
    found, tell = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(settings, found, tell), name="helix-look", daemon=True)
    try:
        process.start()
    except OSError:  # no process is allowed or left: this one looks itself
        found.close()
    else:
        _started.append(_Prehash(process, found))
    tell.close()


def result() -> PrehashResult | None:
    """Wait for the look, and take what it found; None when nobody looked to the end."""
    if not _started:
        return None
    look = _started.pop()
    try:
        return PrehashResult(**json.loads(look.found.recv_bytes()))
    except (EOFError, OSError):
        return None
    finally:
        look.found.close()
        look.process.join()


def _run(settings: Settings, found: Connection, tell: Connection) -> None:
    """In the other process."""
    found.close()  # else nobody would tell it that there is nobody any more to tell
    try:
        manifest = read_list(settings.files)
        files = ImageFiles(manifest, settings.root)
    except NotReadyError:
        return  # told better by the process that also knows the release
    told = {"digest": digest_bytes(manifest), "seen": files.seen, "what": None, "where": None}
    try:
        files.check_tree(settings.home)
    except NotReadyError as error:
        told |= {"what": error.what, "where": error.where}
    with suppress(BrokenPipeError):
        tell.send_bytes(json.dumps(told).encode())
