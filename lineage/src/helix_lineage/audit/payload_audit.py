"""Audit a shard's payload: every item's input and output is kept and meets its commitment, or was erased."""

from __future__ import annotations

from helix_lineage.audit.payload_check import count_erased
from helix_lineage.audit.shard_audit import AuditedShard
from helix_lineage.errors import ShardError, reason
from helix_lineage.shard import payload
from helix_lineage.shard.entries import PredictionEntry, commitment, decode
from helix_lineage.shard.payload_reader import PayloadReader, RecordPosition


def audit_payload(shard: AuditedShard) -> None:
    """Add findings and notes to `shard`."""
    quick = count_erased(shard.folder, shard.covered, shard.predictions, preallocated=shard.unfinished)
    if quick is None:
        _name_what_is_wrong(shard)
    elif quick:
        _note_erased(shard, quick)


def _note_erased(shard: AuditedShard, count: int) -> None:
    shard.notes.append(f"{shard.id}: {count} payloads were erased; their commitments remain")


def _name_what_is_wrong(shard: AuditedShard) -> None:
    """Look at every payload one by one."""
    reader = PayloadReader(shard.folder)
    items = {at: body for at in shard.predictions if isinstance(body := decode(shard.covered[at]), PredictionEntry)}
    outputs, inputs, damaged = _scan(shard, reader, len(shard.covered))
    erased = 0
    used: set[tuple[int, int]] = set()
    lost: list[tuple[str, int]] = []
    for sequence, entry in items.items():
        place = outputs.get(sequence)
        if place is None:
            lost.append(("output", sequence))
            continue
        at = (place.record.input_segment, place.record.input_offset)
        used.add(at)
        given = inputs.get(at)
        if given is None:
            lost.append(("input", sequence))
            continue
        rows = (("input", given, entry.input_commitment), ("output", place, entry.output_commitment))
        for name, found, expected in rows:
            erased += _check(shard, sequence, name, found, expected)
    if lost and damaged:
        what, first = lost[0]
        shard.find(
            "payload", f"behind that, {len(lost)} payloads can't be read, from the {what} of entry {first} on", first
        )
    else:
        for what, sequence in lost:
            shard.find("payload", f"no {what} record is kept of entry {sequence}", sequence)
    for sequence in sorted(set(outputs) - set(items)):
        shard.find("payload", f"a payload is kept of entry {sequence}, which is not a prediction", sequence)
    for segment, offset in [] if damaged else sorted(set(inputs) - used):
        shard.find("payload", f"payload/{segment:06d}.seg: no item uses the input at byte {offset}")
    if erased:
        _note_erased(shard, erased)


def _check(shard: AuditedShard, sequence: int, name: str, place: RecordPosition, expected: bytes) -> bool:
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
) -> tuple[dict[int, RecordPosition], dict[tuple[int, int], RecordPosition], bool]:
    """Output records by sequence, input records by place; whether damage cut this short. Of entries below `size`."""
    outputs: dict[int, RecordPosition] = {}
    inputs: dict[tuple[int, int], RecordPosition] = {}
    numbers = reader.segments()
    for number in numbers:
        try:
            for place in reader.scan(number, preallocated=shard.unfinished and number == numbers[-1]):
                record = place.record
                if record.sequence >= size and shard.unfinished:
                    return outputs, inputs, False  # written, but its entry never was, or is not yet
                if record.kind == payload.INPUT:
                    inputs[number, place.offset] = place
                elif record.sequence in outputs:
                    shard.find("payload", f"two output records of entry {record.sequence}", record.sequence)
                else:
                    outputs[record.sequence] = place
        except (ShardError, OSError) as error:
            if not shard.unfinished or reader.segments()[-1:] != [number] or _missing(shard, outputs):
                shard.find("payload", str(error))
                return outputs, inputs, True
            if not shard.live:
                shard.find("payload-torn", f"{reason(error)}: torn, or damaged; starting a server here recovers it")
            return outputs, inputs, False  # being written
    return outputs, inputs, False


def _missing(shard: AuditedShard, outputs: dict[int, RecordPosition]) -> bool:
    return any(at not in outputs for at in shard.predictions)
