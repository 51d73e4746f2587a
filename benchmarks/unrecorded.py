"""Starts helixserve with a recorder that records nothing: what the benchmark compares recording with, and nothing else.

Runs inside the released image, in place of `python -m helixserve`.
"""

# ruff: noqa: E402
import sys
from collections.abc import Sequence
from typing import Any, Self

from helixserve.runners import machine

machine.pin_numpy()  # before anything loads numpy

import helixserve.server
from helix_lineage.shard import Prediction
from helixserve.__main__ import main
from helixserve.recording.recorder import Recorder


class _Unrecorded(Recorder):
    """Gives ids, and keeps nothing."""

    @classmethod
    def open(cls, *_: Any, **__: Any) -> Self:
        made = cls.__new__(cls)
        made.failure, made.count = None, 0
        return made

    @property
    def shard(self) -> str:
        return "0" * 32

    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        self.count += len(predictions)
        return [f"{self.shard}.{self.count - len(predictions) + at + 1}" for at in range(len(predictions))]

    def mend(self) -> None:
        pass

    def close(self) -> None:
        pass


if __name__ == "__main__":
    helixserve.server.Recorder = _Unrecorded  # type: ignore[misc]
    raise SystemExit(main(sys.argv[1:]))
