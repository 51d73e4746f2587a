"""What a server hands over for each item, and the entry that tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from helix_lineage.shard.entries import prediction_bytes
from helix_lineage.shard.payload_writer import PreparedOutput


@dataclass(frozen=True, slots=True)
class Prediction:
    """One item as the server hands it over."""

    request_id: bytes
    """16 bytes."""
    index: int
    count: int
    input: bytes
    """The request's resolved typed input."""
    output: bytes
    """The item's typed answer."""
    seed: int | None
    lane: str
    started_ns: int
    finished_ns: int


def entry_of(item: Prediction, prepared: PreparedOutput) -> bytes:
    """The entry of an item whose payload is prepared. Raises ShardError."""
    return prediction_bytes(
        item.request_id, item.index, item.count, prepared.given.commitment, prepared.commitment, item.seed, item.lane,
        item.started_ns, item.finished_ns,
    )  # fmt: skip
