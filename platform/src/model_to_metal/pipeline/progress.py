"""How results look on a screen: plain lines, no judgement of their own."""

from __future__ import annotations

from collections.abc import Callable

from model_to_metal.pipeline.engine import Outcome

Write = Callable[[str], None]


class ProgressLines:
    """A watcher that writes one line a stage."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def started(self, stage: str) -> None:
        """Nothing yet: the line comes when the stage is done."""

    def done(self, outcome: Outcome) -> None:
        """The stage's line: name, status, time spent, record."""
        if outcome.ignored:
            self._write(f"{outcome.stage:9} a cache entry does not count: {outcome.ignored}")
        self._write(stage_line(outcome))


def stage_line(outcome: Outcome) -> str:
    """For instance `export    recorded 2026-01-01T00:00:00Z     0.0 s  sha256:0123456789ab  passed`."""
    verdict = outcome.record.parameters.get("passed")
    words = {True: "  passed", False: "  REFUSED"}.get(verdict, "") if isinstance(verdict, bool) else ""
    digest = outcome.record.digest[: len("sha256:") + 12]
    return f"{outcome.stage:9} {outcome.status:30} {outcome.seconds:7.1f} s  {digest}{words}"
