"""Writes every item to the process's shard before its answer leaves.

The process owns its shard: it alone holds the signing key, in memory. What cannot be written is
refused, never served unrecorded.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from helix_lineage.errors import LineageError
from helix_lineage.shard import Prediction, ShardHeader, ShardWriter
from helixserve.errors import UnrecordedError
from helixserve.readiness import Verified

logger = logging.getLogger("helixserve.recorder")

_COMPUTING = ("numpy", "onnxruntime", "gemmi", "safetensors")
"""Distributions whose code can change an answer's bits; the header names those that are installed."""


class Recorder:
    """A shard that is being written. `append` may be called from several threads."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        self.failure: str | None = None
        """Why the last answer could not be recorded; None while all is well."""

    @classmethod
    def open(cls, log: Path, verified: Verified, machine: str, *, now: Callable[[], int] = time.time_ns) -> Self:
        """Begin a shard in the folder `log`. Raises UnrecordedError."""
        header = ShardHeader(
            release=verified.release.digest,
            promotion=None,
            generation=0,
            mode="local",
            image=verified.image,
            machine_class=machine,
            libraries=libraries(),
            model=verified.contract.name,
        )
        try:
            log.mkdir(parents=True, exist_ok=True)
            return cls(ShardWriter.create(log, header, now=now, release=verified.bundle))
        except (LineageError, OSError) as error:
            raise UnrecordedError(f"cannot open a shard: {error}", where=str(log)) from error

    @property
    def shard(self) -> str:
        """The shard's id, 32 hex digits."""
        return str(self._writer.shard_id)

    def append(self, predictions: Sequence[Prediction]) -> list[str]:
        """Prediction ids, once everything is on disk. Raises UnrecordedError when it cannot be."""
        try:
            ids = list(self._writer.append(predictions))
        except (LineageError, OSError) as error:
            self.failure = str(error)
            logger.exception("the shard %s cannot be written", self.shard)
            raise UnrecordedError(
                "the answer could not be recorded, so it is withheld", where="log", fix="retry at another replica"
            ) from error
        self.failure = None
        return ids

    def close(self) -> None:
        """End the shard with its close entry."""
        self._writer.close()


def libraries() -> dict[str, str]:
    """Name → version of what computes here."""
    found = {"python": platform.python_version(), "libc": " ".join(platform.libc_ver())}
    for name in _COMPUTING:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
