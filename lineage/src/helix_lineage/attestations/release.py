"""Verify a signed release: signature, subject, and that its chain of records is complete (FORMAT.md 6). Pure.

- A releaser's key signed it, valid at the time asked about, and the release names that key's builder.
- It has one subject: the release's image, and the one that is asked about.
- The predicate is one release and its records, each under its own digest.
- Every parent in the chain is there, matches its digest, and is of the type that its role asks for.
- Paths that must meet lead to one record: guard, regression, image and engine speak of the same artifact.
- All records name one model.
- The verdicts of guard and regression are `passed`.
- The image is the one that was built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NoReturn

from helix_lineage.attestations import dsse
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import RecordError, TrustError
from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import (
    CompiledEngine,
    DataCommit,
    ExportedModel,
    FirstRelease,
    GuardVerdict,
    ImageBuild,
    Record,
    RegressionVerdict,
    Release,
    TrainedWeights,
    embedded,
)

PREDICATE_TYPE = "https://helix.example/release/v1"

_FIRST: Mapping[str, type[Record]] = {
    "image": ImageBuild,
    "guard": GuardVerdict,
    "data": DataCommit,
    "weights": TrainedWeights,
    "exported": ExportedModel,
    "regression": RegressionVerdict,
}

ROLE_TYPES: Mapping[type[Record], Mapping[str, type[Record]]] = MappingProxyType(
    {
        Release: {**_FIRST, "engine": CompiledEngine},
        FirstRelease: _FIRST,
        # Which of the release's records these two are is among the meetings: the engine, or in version 1 the export.
        ImageBuild: {"model": Record},
        RegressionVerdict: {"candidate": Record, "weights": TrainedWeights, "data": DataCommit},
        CompiledEngine: {"exported": ExportedModel},
        ExportedModel: {"weights": TrainedWeights},
        TrainedWeights: {"data": DataCommit},
    }
)
"""Which type of record each parent role names. `incumbent` is evidence of another release and is not followed."""

_Path = tuple[str, ...]

_MEETINGS: tuple[tuple[_Path, _Path], ...] = (
    (("exported", "weights"), ("weights",)),
    (("weights", "data"), ("data",)),
    (("regression", "weights"), ("weights",)),
    (("regression", "data"), ("data",)),
)
"""Pairs of paths from the release that must lead to one record."""


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release whose signature and chain hold."""

    release: Release
    records: Mapping[str, Record]
    """Every record of the chain, by digest."""
    statement_subject: dsse.Subject
    """Repository name and manifest digest of the image."""
    key_id: str
    """The releaser's key."""
    builder: str

    def parent(self, *path: str) -> Record:
        """The record that these roles lead to, for instance `parent("image", "model")`."""
        record: Record = self.release
        for role in path:
            record = self.records[record.parents[role]]
        return record


def verify_release(bundle: bytes, trust: Trust, *, image: str | None, at: datetime) -> VerifiedRelease:
    """Check a release bundle. Raises TrustError or RecordError, naming the field that does not hold.

    Args:
        image: the manifest digest that is asked about, or None for whatever the release names.
        at: when the releaser's key must hold.
    """
    statement = dsse.open_statement(bundle, trust, role="releaser", predicate_type=PREDICATE_TYPE, at=at)
    release, records = _parse_predicate(statement.predicate)
    complete_chain(release, records)
    if len(statement.subjects) != 1:
        raise TrustError(f"the release statement has {len(statement.subjects)} subjects, not one")
    subject = statement.subjects[0]
    if subject.digest != release.parameters["image"]:
        refuse("the statement's subject", subject.digest, "release.parameters.image", release.parameters["image"])
    if image is not None and image != subject.digest:
        refuse("the running image (as claimed)", image, "the release's image", subject.digest)
    if release.parameters["builder"] != statement.signer.builder:
        said, key = release.parameters["builder"], statement.signer
        refuse("release.parameters.builder", said, "the key's builder", key.builder)
    return VerifiedRelease(
        release, MappingProxyType(dict(records)), subject, statement.signer.key_id, statement.signer.builder
    )


def claimed_release(bundle: bytes) -> Release:
    """The release that a bundle speaks of; no signature is checked. Raises TrustError or RecordError."""
    return _release(dsse.claimed_predicate(bundle))


def complete_chain(release: Release, records: Mapping[str, Record]) -> None:
    """Check that the chain below a release is whole and holds together. Raises RecordError. Pure."""
    _walk("release", release, records, set())
    for left, right in _meetings(release, records[release.parents["guard"]]):
        first, second = _digest_at(release, records, left), _digest_at(release, records, right)
        if first != second:
            refuse(".".join(left), first, ".".join(right), second, RecordError)
    names = [record.parameters["model"] for record in (release, *records.values())]
    if not isinstance(names[0], str) or any(name != names[0] for name in names):
        raise RecordError(f"the records speak of different models: {sorted(set(map(str, names)))}")
    for role in ("guard", "regression"):
        if records[release.parents[role]].parameters["passed"] is not True:
            raise RecordError(f"{role}.parameters.passed is not true: the verdict was a refusal")
    built = records[release.parents["image"]].parameters["image"]
    if release.parameters["image"] != built:
        refuse("release.parameters.image", release.parameters["image"], "image.parameters.image", built, RecordError)


def _meetings(release: Release, guard: Record) -> list[tuple[_Path, _Path]]:
    """What must lead to one record in this release, by its version and by what its guard looked at."""
    compiled = "engine" in release.parents
    served: _Path = ("engine",) if compiled else ("exported",)
    found = [*_MEETINGS, (("image", "model"), served), (("regression", "candidate"), served)]
    if compiled:
        found.append((("engine", "exported"), ("exported",)))
    # A guard that also ran the model must have run this one.
    return found + [(("guard", role), (role,)) for role in ("exported", "engine") if role in guard.parents]


def _walk(path: str, record: Record, records: Mapping[str, Record], seen: set[str]) -> None:
    """Every parent is there and of the type that its role asks for."""
    for role, kind in ROLE_TYPES.get(type(record), {}).items():
        digest = record.parents[role]
        parent = records.get(digest)
        if parent is None:
            raise RecordError(f"the chain is incomplete: {path}.parents.{role} is missing", where=digest)
        if not isinstance(parent, kind):
            raise RecordError(f"{path}.parents.{role} is a {parent.TYPE}, not a {kind.TYPE}", where=digest)
        if parent.digest != digest:
            raise RecordError(f"{path}.parents.{role} does not match its digest", where=digest)
        if digest not in seen:
            seen.add(digest)
            _walk(f"{path}.{role}", parent, records, seen)


def _digest_at(release: Release, records: Mapping[str, Record], path: tuple[str, ...]) -> str:
    record: Record = release
    for role in path[:-1]:
        record = records[record.parents[role]]
    return record.parents[path[-1]]


def _parse_predicate(predicate: Mapping[str, Json]) -> tuple[Release, dict[str, Record]]:
    if set(predicate) != {"release", "records"} or not isinstance(predicate["records"], dict):
        raise TrustError('the predicate is {"release": …, "records": {digest: record, …}}')
    release = _release(predicate)
    records = {}
    for digest, value in predicate["records"].items():
        record = embedded(value, Record, f"predicate.records[{digest}]")
        if record.digest != digest:
            raise RecordError(f"predicate.records[{digest}] hashes to {record.digest}", where=digest)
        records[digest] = record
    return release, records


def _release(predicate: Mapping[str, Json]) -> Release:
    if "release" not in predicate:
        raise TrustError("the predicate names no release")
    return embedded(predicate["release"], Release, "predicate.release")


def refuse(left: str, left_value: object, right: str, right_value: object, kind: type = TrustError) -> NoReturn:
    """Raise an error of `kind`: two things that must be equal, and what each is."""
    raise kind(f"{left} is {left_value}, but {right} is {right_value}")
