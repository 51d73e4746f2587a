"""Audit a shard's payload: every item's input and output is kept and meets its commitment, or was erased."""

from __future__ import annotations

from helix_lineage.audit.shard_audit import AuditedShard
from helix_lineage.errors import ShardError
from helix_lineage.shard import payload
from helix_lineage.shard.entries import PredictionEntry, commitment
from helix_lineage.shard.payload_reader import PayloadReader, Place


def audit_payload(shard: AuditedShard) -> None:
    """Add findings and notes to `shard`."""
    reader = PayloadReader(shard.folder)
    items = {sequence: body for sequence, body in shard.decoded.items() if isinstance(body, PredictionEntry)}
    outputs, inputs = _scan(shard, reader, len(shard.entries))
    erased = 0
    used: set[tuple[int, int]] = set()
    for sequence, entry in items.items():
        place = outputs.get(sequence)
        if place is None:
            shard.find("payload", f"no output record is kept of entry {sequence}", sequence)
            continue
        at = (place.record.input_segment, place.record.input_offset)
        used.add(at)
        given = inputs.get(at)
        if given is None:
            shard.find("payload", f"no input record is kept of entry {sequence}", sequence)
            continue
        rows = (("input", given, entry.input_commitment), ("output", place, entry.output_commitment))
        for name, found, expected in rows:
            erased += _check(shard, sequence, name, found, expected)
    for sequence in sorted(set(outputs) - set(items)):
        shard.find("payload", f"a payload is kept of entry {sequence}, which is no prediction", sequence)
    for segment, offset in sorted(set(inputs) - used):
        shard.find("payload", f"payload/{segment:06d}.seg: no item uses the input at byte {offset}")
    if erased:
        shard.notes.append(f"{shard.id}: {erased} payloads were erased; their commitments remain")


def _check(shard: AuditedShard, sequence: int, name: str, place: Place, expected: bytes) -> bool:
    """Compare a record with the entry's commitment; True when it was erased."""
    record = place.record
    if record.state:
        return True
    try:
        value = record.value
    except ShardError as error:
        shard.find("payload", f"the {name} of entry {sequence}: {error.what}", sequence)
        return False
    if value is None or commitment(record.salt, value) != expected:
        shard.find("payload", f"the {name} of entry {sequence} does not meet its commitment", sequence)
    return False


def _scan(
    shard: AuditedShard, reader: PayloadReader, size: int
) -> tuple[dict[int, Place], dict[tuple[int, int], Place]]:
    """Output records by sequence and input records by place, of items that entries may tell of."""
    outputs: dict[int, Place] = {}
    inputs: dict[tuple[int, int], Place] = {}
    for number in reader.segments():
        try:
            for place in reader.scan(number):
                record = place.record
                if record.sequence >= size and shard.live:
                    return outputs, inputs  # written, and not yet entered
                if record.kind == payload.INPUT:
                    inputs[number, place.offset] = place
                elif record.sequence in outputs:
                    shard.find("payload", f"two output records of entry {record.sequence}", record.sequence)
                else:
                    outputs[record.sequence] = place
        except (ShardError, OSError) as error:
            if shard.live and number == reader.segments()[-1]:
                shard.notes.append(f"{shard.id}: the end of payload segment {number} is being written")
            else:
                shard.find("payload", str(error))
    return outputs, inputs
