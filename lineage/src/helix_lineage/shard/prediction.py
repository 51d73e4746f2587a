"""What a server hands over for each item, and the entry that tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from helix_lineage.shard.entries import PredictionEntry
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


def entry_for(item: Prediction, prepared: PreparedOutput) -> PredictionEntry:
    """The entry of an item whose payload is prepared."""
    return PredictionEntry(
        request_id=item.request_id,
        index=item.index,
        count=item.count,
        input_commitment=prepared.given.commitment,
        output_commitment=prepared.commitment,
        seed=item.seed,
        lane=item.lane,
        batch_plan=None,
        row=None,
        started_ns=item.started_ns,
        finished_ns=item.finished_ns,
    )
