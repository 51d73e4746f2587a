"""The errors of this package, apart from those of a request (see `helixserve.errors`).

ProteinMPNNError
├── DataError      an archive or a data file is absent or not the locked one
└── WeightsError   a checkpoint is not the one that the network is made for

This module imports nothing: `data` runs on the standard library alone.
"""

from __future__ import annotations


class ProteinMPNNError(Exception):
    """Root of the package's errors.

    Args:
        what: one sentence that says what happened.
        where: the file or tensor concerned.
        fix: the one command that mends it.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        mend = f"; run: {self.fix}" if self.fix else ""
        return f"{self.what}{place}{mend}"


class DataError(ProteinMPNNError):
    """An archive or a data file is absent, or not the locked one."""


class WeightsError(ProteinMPNNError):
    """A checkpoint is not the one that the network is made for."""
