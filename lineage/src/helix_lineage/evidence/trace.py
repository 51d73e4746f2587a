"""From a prediction id to everything that made it.

Takes an id and places to look, gives a `Trace`: entry, inclusion proof, shard header, release
and every record of its chain. Reads only; what does not hold is said, not hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from helix_lineage.attestations.promotion import VerifiedPromotion
from helix_lineage.directory.view import View, WitnessedTimes, witnessed
from helix_lineage.errors import LineageError, ShardError
from helix_lineage.evidence.promotions import find_promotion
from helix_lineage.evidence.releases import FoundRelease, ReleaseSources, find_release
from helix_lineage.evidence.values import Values, stored
from helix_lineage.formats.canonical import Json, encode_number
from helix_lineage.records.chain import Record
from helix_lineage.shard.entries import PredictionEntry, commitment
from helix_lineage.shard.header import ShardHeader
from helix_lineage.shard.reader import Inclusion, Log, Shard

CHAIN = ("image", "engine", "exported", "weights", "data", "guard", "regression")
"""Roles of a release, from what runs to what it was made of."""
KEPT, ERASED = "kept", "erased"
"""States of a payload that are as they should be."""
ARTIFACTS = CHAIN[:5]
"""Those that are things, and not verdicts: each has files, or an image's manifest, with digests of their own."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One prediction, and what it came from."""

    id: str
    entry: PredictionEntry
    inclusion: Inclusion
    header: ShardHeader
    payload: dict[str, str]
    """`input` and `output` → `kept`, `erased`, or what is wrong."""
    found: FoundRelease | None
    problem: str | None
    """Why there is no release to show, or why its signature does not hold."""
    promotion: VerifiedPromotion | None
    """Who put the release where it ran; None in mode `local`, and where that does not hold."""
    promotion_problem: str | None
    """Why the header's promotion does not hold."""
    directory: WitnessedTimes | None = None
    """What a directory says of it; None when none was asked."""
    values: Values = field(default_factory=Values)
    """What was asked and answered, as far as it is kept."""

    @property
    def payload_problems(self) -> list[str]:
        """What of input and output is neither kept as it was committed to nor erased."""
        return [f"{name}: {state}" for name, state in self.payload.items() if state not in (KEPT, ERASED)]

    def record(self, name: str) -> Record | None:
        """A record of the chain by its role in the release; an old release has no engine."""
        if self.found is None or name not in self.found.release.parents:
            return None
        return self.found.records[self.found.release.parents[name]]

    def to_json(self) -> dict[str, Json]:
        """Everything, as JSON values."""
        return {
            "version": 2,
            "id": self.id,
            "model": self.header.model,
            "prediction": _entry_json(self.entry) | {"payload": dict(self.payload)},
            "inclusion": _inclusion_json(self.inclusion),
            "shard": _header_json(self.header),
            "directory": None if self.directory is None else self.directory.to_json(),
            "revocations_checked": self.directory is not None,
            "release": self._release_json(),
            "promotion": self._promotion_json(),
            "code_commit": self._release_parameter("commit"),
            "artifacts": {
                role: _artifact_json(role, record) for role in ARTIFACTS if (record := self.record(role)) is not None
            },
            "warnings": list(self.values.warnings),
            "seed": None if self.entry.seed is None else str(self.entry.seed),
            "environments": self._environments(),
            "image": {
                "claimed": self.header.image,
                "released": self._release_parameter("image"),
                "filesystem": self._parameter("image", "filesystem"),
            },
            "batch": None if self.entry.batch_plan is None else {"plan": self.entry.batch_plan, "row": self.entry.row},
            "records": {} if self.found is None else {d: r.to_json() for d, r in sorted(self.found.records.items())},
        }

    def _release_json(self) -> dict[str, Json]:
        verified = self.found.verified if self.found else None
        return {
            "digest": self.header.release,
            "record": None if self.found is None else self.found.release.to_json(),
            "signed_by": None if verified is None else verified.key_id,
            "builder": None if verified is None else verified.builder,
            "problem": self.problem,
        }

    def _promotion_json(self) -> dict[str, Json] | None:
        """None in mode `local`."""
        if self.header.promotion is None:
            return None
        found = self.promotion
        return {
            "digest": self.header.promotion,
            "generation": self.header.generation,
            "environment": None if found is None else found.environment,
            "record": None if found is None else found.promotion.to_json(),
            "signed_by": None if found is None else found.key_id,
            "problem": self.promotion_problem,
        }

    def _release_parameter(self, name: str) -> Json:
        return None if self.found is None else self.found.release.parameters.get(name)

    def _parameter(self, role: str, name: str) -> Json:
        record = self.record(role)
        return None if record is None else record.parameters.get(name)

    def _environments(self) -> dict[str, Json]:
        return {role: found for role in CHAIN if (found := self._parameter(role, "environment")) is not None}


def trace(log: Log, prediction: str, sources: ReleaseSources, directory: View | None = None) -> Trace:
    """Trace a prediction id. Raises PredictionNotFound, ShardError or TrustError when the log itself does not hold."""
    shard, sequence = log.find(prediction)
    entry = shard.prediction(sequence)
    inclusion = shard.inclusion(sequence)
    found, problem = None, None
    try:
        found = find_release(shard, sources)
        problem = found.problem
    except LineageError as error:
        problem = str(error)
    promotion, unpromoted = None, None
    try:
        promotion = find_promotion(shard, sources.trust, found.verified if found else None)
    except LineageError as error:
        unpromoted = str(error)
    said = None if directory is None else witnessed(directory, shard.header, sequence, shard.id)
    return Trace(
        id=prediction,
        entry=entry,
        inclusion=inclusion,
        header=shard.header,
        payload=payload_states(shard, sequence, entry),
        found=found,
        problem=problem,
        promotion=promotion,
        promotion_problem=unpromoted,
        directory=said,
        values=stored(shard, sequence, entry),
    )


@dataclass(frozen=True, slots=True)
class TracedFile:
    """A file, or an image's manifest, with a digest of its own: what a record tells of."""

    name: str
    digest: str
    size: int | None
    """Bytes, where the record tells."""


def artifacts(role: str, record: Record) -> list[TracedFile]:
    """The things that a record tells of; an image's is its manifest."""
    found = [TracedFile("manifest", str(record.parameters["image"]), None)] if role == "image" else []
    return found + [TracedFile(output.name, output.digest, output.size) for output in record.outputs]


def payload_states(shard: Shard, sequence: int, entry: PredictionEntry) -> dict[str, str]:
    """`input` and `output` → `kept` (and meeting its commitment), `erased`, or what is wrong."""
    try:
        kept = shard.payload(sequence)
    except ShardError as error:
        return {"input": str(error), "output": str(error)}
    rows = (
        ("input", kept.input, kept.input_salt, entry.input_commitment),
        ("output", kept.output, kept.output_salt, entry.output_commitment),
    )
    state = {}
    for name, value, salt, expected in rows:
        if value is None or salt is None:
            state[name] = ERASED
        else:
            state[name] = KEPT if commitment(salt, value) == expected else "does not meet its commitment"
    return state


def _artifact_json(role: str, record: Record) -> dict[str, Any]:
    """Digests of the things themselves, and apart from them the digest of the record that tells of them."""
    files = [{"name": item.name, "digest": item.digest, "size": item.size} for item in artifacts(role, record)]
    return {"record": record.digest, "files": files}


def _entry_json(entry: PredictionEntry) -> dict[str, Any]:
    return {
        "request_id": entry.request_id.hex(),
        "index": entry.index,
        "count": entry.count,
        "input_commitment": entry.input_commitment.hex(),
        "output_commitment": entry.output_commitment.hex(),
        "seed": None if entry.seed is None else str(entry.seed),
        "lane": entry.lane,
        "started_ns": encode_number(entry.started_ns),
        "finished_ns": encode_number(entry.finished_ns),
    }


def _inclusion_json(inclusion: Inclusion) -> dict[str, Any]:
    return {
        "sequence": inclusion.sequence,
        "leaf": inclusion.leaf.hex(),
        "proof": [node.hex() for node in inclusion.proof],
        "checkpoint": inclusion.note.decode(),
        "holds": inclusion.holds,
    }


def _header_json(header: ShardHeader) -> dict[str, Any]:
    return {
        "public_key": header.public_key.hex(),
        "model": header.model,
        "mode": header.mode,
        "release": header.release,
        "promotion": header.promotion,
        "generation": header.generation,
        "image": header.image,
        "machine_class": header.machine_class,
        "libraries": dict(sorted(header.libraries.items())),
        "started_ns": encode_number(header.started_ns),
    }
