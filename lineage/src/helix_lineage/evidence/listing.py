"""Which predictions a log holds, newest first, in bounded memory.

A shard is read from its end: first what its journal holds beyond the published tiles, then entry bundle after
entry bundle. Nothing is proven here; that is for `trace` and `audit`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from helix_lineage.errors import LineageError
from helix_lineage.shard import entries
from helix_lineage.shard.header import ShardHeader, prediction_id
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog import tiles
from helix_lineage.tlog.layout import TILE_WIDTH


@dataclass(frozen=True, slots=True)
class ListedPrediction:
    """One prediction."""

    id: str
    entry: entries.PredictionEntry
    header: ShardHeader

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        entry, header = self.entry, self.header
        return {
            "id": self.id,
            "finished_ns": str(entry.finished_ns),
            "model": header.model,
            "release": header.release,
            "request_id": entry.request_id.hex(),
            "index": entry.index,
            "count": entry.count,
            "seed": None if entry.seed is None else str(entry.seed),
        }


@dataclass(frozen=True, slots=True)
class PredictionFilter:
    """Which predictions are asked for; what is None does not matter."""

    model: str | None = None
    request: str | None = None
    """How the request's id starts, in hex digits."""
    since_ns: int | None = None

    def has(self, item: ListedPrediction) -> bool:
        """Is this one of them?"""
        return (
            (self.request is None or item.entry.request_id.hex().startswith(self.request))
            and (self.since_ns is None or item.entry.finished_ns >= self.since_ns)
            and (self.model is None or item.header.model == self.model)
        )


def newest(
    log: Log, wanted: PredictionFilter, damaged: Callable[[str, LineageError], None]
) -> Iterator[ListedPrediction]:
    """Predictions, newest first; inside a shard in the reverse order of its log.

    Args:
        damaged: told of each shard that cannot be read (to its beginning); the others are listed all the same.
    """

    def opened(name: str) -> Iterator[tuple[int, ListedPrediction]]:
        return _falling(_backwards(log, name, wanted, damaged))

    # A shard is opened when its turn comes: thousands of them may lie there, and few run side by side.
    waiting = sorted((first[0], name) for name in log.shard_ids() if (first := next(opened(name), None)) is not None)
    running: list[tuple[int, str, ListedPrediction, Iterator[tuple[int, ListedPrediction]]]] = []
    while waiting or running:
        while waiting and (not running or waiting[-1][0] >= -running[0][0]):
            _, name = waiting.pop()
            _push(running, name, opened(name))
        if running:
            _, name, item, rest = heapq.heappop(running)
            if wanted.has(item):
                yield item
            _push(running, name, rest)


def _push(
    running: list[tuple[int, str, ListedPrediction, Iterator[tuple[int, ListedPrediction]]]],
    name: str,
    rest: Iterator[tuple[int, ListedPrediction]],
) -> None:
    """Put a shard's next prediction where its time belongs; a shard has one place at most."""
    if (found := next(rest, None)) is not None:
        heapq.heappush(running, (-found[0], name, found[1], rest))


def _falling(items: Iterator[ListedPrediction]) -> Iterator[tuple[int, ListedPrediction]]:
    """Each with a time that never rises, as a merge needs it: entries that finish together may change places."""
    time_ns = 2**64
    for item in items:
        time_ns = min(time_ns, item.entry.finished_ns)
        yield time_ns, item


def _backwards(
    log: Log, name: str, wanted: PredictionFilter, damaged: Callable[[str, LineageError], None]
) -> Iterator[ListedPrediction]:
    try:
        shard = log.shard(name)
        if wanted.model is not None and shard.header.model != wanted.model:
            return
        for sequence, data in _entries(shard):
            entry = entries.decode(data) if sequence else None
            if isinstance(entry, entries.PredictionEntry):
                yield ListedPrediction(prediction_id(name, sequence), entry, shard.header)
    except LineageError as error:
        damaged(name, error)


def _entries(shard: Shard) -> Iterator[tuple[int, bytes]]:
    """`(sequence, entry)` from the last to the first. An ended shard's journal is never read."""
    published = shard.published_size
    if not (published and shard.ended):
        yield from ((published + at, data) for at, data in reversed(list(enumerate(shard.unpublished()))))
    for index in reversed(range(-(-published // TILE_WIDTH))):
        width = min(TILE_WIDTH, published - index * TILE_WIDTH)
        bundle = tiles.decode_bundle(shard.bundle(index, width))[:width]
        yield from ((index * TILE_WIDTH + at, data) for at, data in reversed(list(enumerate(bundle))))
