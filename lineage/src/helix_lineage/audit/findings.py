"""What an audit finds, and how two lists of entries differ. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from helix_lineage.errors import printable
from helix_lineage.formats.canonical import Json


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold."""

    rule: str
    """For instance `entry-edited`; see RULES."""
    shard: str
    """The shard concerned."""
    message: str
    """One sentence that names what and where."""
    sequence: int | None = None
    """The entry concerned, where one is known."""
    follow: int = 0
    """How many more would be found that follow from this one alone, and are not listed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))

    def to_json(self) -> dict[str, Json]:
        """The finding as JSON values."""
        return {
            "rule": self.rule, "shard": self.shard, "message": self.message, "sequence": self.sequence,
            "follow": self.follow,
        }  # fmt: skip


RULES = {
    "header": "entry 0 is not a header, or does not make the shard's id",
    "journal-damaged": "a frame of the journal cannot be read",
    "journal-torn": "bytes follow the last checkpoint of a dead shard that nobody recovered",
    "checkpoint": "a checkpoint's signature or size does not hold",
    "entry-edited": "an entry is not the one that was signed",
    "entry-dropped": "an entry that was signed is gone",
    "entry-reordered": "entries stand in another order than they were signed in",
    "entries-differ": "the entries are not those that were signed; no reference tells which",
    "entry-malformed": "an entry cannot be read, or stands where it may not",
    "truncated": "the shard is shorter than somebody knows it was",
    "forked": "the shard has another history than somebody knows",
    "shard-missing": "a shard that somebody knows is not there",
    "tile": "a tile is missing, or does not hold what the journal holds",
    "payload": "a payload is missing, damaged, or does not meet its commitment",
    "payload-torn": "what follows the last payload of a dead shard that nobody recovered cannot be read",
    "recovery": "the mark of a recovery does not hold",
    "rolled-back": "an older state of the shard was put back",
    "unregistered": "the shard served, and the directory does not know it",
    "time": "a host's time is outside the directory's times",
    "directory": "the directory's log does not hold, or took what it should not have taken",
    "release": "the shard's release does not verify against the trust root",
    "promotion": "the shard's promotion does not verify against the trust root and its release",
    "file": "a file lies in the shard that does not belong there, or something else than a file in its place",
    "unreadable": "the audit of this shard failed: what lies there made it do what it should not",
}
"""Rule → what it means."""


@dataclass(slots=True)
class AuditReport:
    """Findings, and what is worth knowing without being wrong."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shards: int = 0
    entries: int = 0
    predictions: int = 0
    checkpoints: int = 0
    directory: int | None = None
    """Entries of the directory that the log was compared with."""

    @property
    def passed(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Json]:
        """The report as JSON values."""
        return {
            "version": 1,
            "passed": self.passed,
            "shards": self.shards,
            "entries": self.entries,
            "predictions": self.predictions,
            "checkpoints": self.checkpoints,
            "directory": self.directory,
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """How a list of leaf hashes differs from the signed one."""

    rule: str
    sequence: int
    message: str


def compare(signed: Sequence[bytes], found: Sequence[bytes]) -> list[Difference]:
    """Name the entries in which `found` differs from `signed`; both are leaf hashes in order."""
    if list(signed) == list(found):
        return []
    places: dict[bytes, list[int]] = {}
    for at, leaf in enumerate(signed):
        places.setdefault(leaf, []).append(at)
    if Counter(signed) == Counter(found):
        moved = [at for at, (left, right) in enumerate(zip(signed, found, strict=True)) if left != right]
        names = ", ".join(f"{at} (which was {places[found[at]][0]})" for at in moved)
        return [Difference("entry-reordered", moved[0], f"entries were reordered: {names}")]
    missing = _subsequence(signed, found)
    if missing is not None:
        return [Difference("entry-dropped", at, f"entry {at} was dropped") for at in missing]
    if len(signed) == len(found):
        changed = [at for at, (left, right) in enumerate(zip(signed, found, strict=True)) if left != right]
        return [Difference("entry-edited", at, f"entry {at} was edited") for at in changed]
    first = next((at for at, (a, b) in enumerate(zip(signed, found, strict=False)) if a != b), len(found))
    message = f"from entry {first} on, the {len(found)} entries are not the {len(signed)} that were signed"
    return [Difference("entries-differ", first, message)]


def _subsequence(signed: Sequence[bytes], found: Sequence[bytes]) -> list[int] | None:
    """The places that were left out, if leaving out is all that happened."""
    missing, at = [], 0
    for place, leaf in enumerate(signed):
        if at < len(found) and found[at] == leaf:
            at += 1
        else:
            missing.append(place)
    return missing if at == len(found) else None
