"""The record chain: what each step of the way from a commit to a promoted image gives.

A record is canonical JSON; its identity is the SHA-256 of those bytes; it names its
parents by role and digest. It covers content only: what differs from run to run (commit,
time, host, duration) belongs to an `Observation` (see `helix_lineage.records.store`).

>>> record = DataCommit(parameters={"model": "m", "dvc_lock": "sha256:" + "0" * 64, "files": []})
>>> parse(record.to_bytes()) == record
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

from helix_lineage.errors import CanonicalError, RecordError
from helix_lineage.formats.canonical import SAFE_INTEGER, Json, check_digest, digest_bytes, dumps, loads

_SEED_DIGITS = 20  # of 2**64 - 1; Python refuses to read very long numbers


@dataclass(frozen=True, slots=True, order=True)
class Artifact:
    """A file that a step gives."""

    name: str
    """Path relative to the step's output folder, with `/`."""
    digest: str
    """`sha256:<64 hex>` of its bytes."""
    size: int
    """Bytes."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _is_relative(self.name):
            raise RecordError(f"an output's name is a relative path without '..': {self.name!r}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 0 <= self.size < SAFE_INTEGER:
            raise RecordError(f"the output {self.name!r} has the size {self.size!r}")
        _check_digest(self.digest)

    def to_json(self) -> dict[str, Json]:
        """The output as a JSON object."""
        return {"name": self.name, "digest": self.digest, "size": self.size}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Read what `to_json` gave. Raises RecordError."""
        if not isinstance(value, dict) or set(value) != {"name", "digest", "size"}:
            raise RecordError("an output needs exactly: name, digest, size")
        return cls(value["name"], value["digest"], value["size"])


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a step gives. Subclasses fix the type, the parent roles and the parameters."""

    TYPE: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1
    PARENTS: ClassVar[Mapping[str, bool]] = MappingProxyType({})
    """Role → whether the parent is required."""
    REQUIRED: ClassVar[tuple[str, ...]] = ()
    """Parameters that must be present."""

    parents: Mapping[str, str] = field(default_factory=dict)
    """Role → digest of the parent record."""
    parameters: Mapping[str, Json] = field(default_factory=dict)
    """What steered the step, and what it found; canonical JSON values."""
    outputs: tuple[Artifact, ...] = ()
    """The files it gave, sorted by name."""
    seed: int | None = None
    """The root seed, where the step draws random numbers; 0 is a seed."""
    target: str | None = None
    """What the outputs run on, for instance `onnxruntime-cpu`."""
    machine_class: str | None = None
    """The class of machine, where it changes the bytes, for instance `x86-64-v4`."""

    def __post_init__(self) -> None:
        if not self.TYPE:
            raise RecordError("Record itself has no type; use one of its subclasses")
        wrong = sorted(set(self.parents) - set(self.PARENTS))
        absent = sorted(role for role, required in self.PARENTS.items() if required and role not in self.parents)
        if wrong or absent:
            raise RecordError(f"{self.TYPE}: parents missing {absent}, unknown {wrong}")
        missing = [name for name in self.REQUIRED if name not in self.parameters]
        if missing:
            raise RecordError(f"{self.TYPE}: parameters missing {missing}")
        for digest in self.parents.values():
            _check_digest(digest)
        if self.seed is not None and not (type(self.seed) is int and 0 <= self.seed < 2**64):
            raise RecordError(f"{self.TYPE}: a seed is an integer in [0, 2**64), not {self.seed!r}")
        object.__setattr__(self, "outputs", tuple(sorted(self.outputs)))
        if len({output.name for output in self.outputs}) != len(self.outputs):
            raise RecordError(f"{self.TYPE}: two outputs of one name")

    def to_json(self) -> dict[str, Json]:
        """The record as a JSON object; `dumps` of it is `to_bytes`."""
        return {
            "type": self.TYPE,
            "version": self.VERSION,
            "parents": dict(self.parents),
            "parameters": dict(self.parameters),
            "outputs": [output.to_json() for output in self.outputs],
            # Decimal strings, because RFC 8785 holds integers below 2**53 only.
            "seed": None if self.seed is None else str(self.seed),
            "target": self.target,
            "machine_class": self.machine_class,
        }

    def to_bytes(self) -> bytes:
        """The canonical JSON that `digest` covers."""
        return dumps(self.to_json())

    @property
    def digest(self) -> str:
        """The record's identity, `sha256:<64 hex>`."""
        return digest_bytes(self.to_bytes())

    def output(self, name: str) -> Artifact:
        """The output of that name. Raises RecordError when there is none."""
        for candidate in self.outputs:
            if candidate.name == name:
                return candidate
        raise RecordError(f"{self.TYPE} has no output {name!r}", where=self.digest)


def _roles(required: str = "", optional: str = "") -> Mapping[str, bool]:
    return MappingProxyType(dict.fromkeys(required.split(), True) | dict.fromkeys(optional.split(), False))


@dataclass(frozen=True, kw_only=True)
class GuardVerdict(Record):
    """May this source go on? Findings carry rule, file, line, message and fix."""

    TYPE = "helix.guard-verdict"
    PARENTS = _roles("", "exported engine")
    REQUIRED = ("model", "source", "locks", "passed", "findings")


@dataclass(frozen=True, kw_only=True)
class DataCommit(Record):
    """The data: DVC's md5s in `files`, our SHA-256 manifest in `outputs`."""

    TYPE = "helix.data-commit"
    REQUIRED = ("model", "dvc_lock", "files")


@dataclass(frozen=True, kw_only=True)
class TrainedWeights(Record):
    """Weights as safetensors; `origin` is `imported` or `trained`."""

    TYPE = "helix.trained-weights"
    PARENTS = _roles("data")
    REQUIRED = ("model", "origin", "source", "environment")


@dataclass(frozen=True, kw_only=True)
class ExportedModel(Record):
    """The weights as graphs that a runner loads."""

    TYPE = "helix.exported-model"
    PARENTS = _roles("weights")
    REQUIRED = ("model", "source", "environment")


@dataclass(frozen=True, kw_only=True)
class CompiledEngine(Record):
    """What a runner loads on one target: the exported graphs, and what was compiled for them."""

    TYPE = "helix.compiled-engine"
    PARENTS = _roles("exported")
    REQUIRED = ("model", "source", "environment")


@dataclass(frozen=True, kw_only=True)
class RegressionVerdict(Record):
    """May this artifact replace the one in production? A refusal is recorded too.

    `cases` are judged, each with its value and limit; `reported`, where it is there, holds measurements
    that depend on the processor and decide nothing.
    """

    TYPE = "helix.regression-verdict"
    PARENTS = _roles("candidate weights data", "incumbent")
    REQUIRED = ("model", "source", "environment", "passed", "cases")


@dataclass(frozen=True, kw_only=True)
class ImageBuild(Record):
    """An OCI image: its manifest digest, and the digest of the list of its files."""

    TYPE = "helix.image-build"
    PARENTS = _roles("model")
    REQUIRED = ("model", "source", "environment", "image", "filesystem")


@dataclass(frozen=True, kw_only=True)
class Release(Record):
    """A commit, the records that came of it, and the image."""

    TYPE = "helix.release"
    VERSION = 2
    PARENTS = _roles("image guard data weights exported engine regression")
    REQUIRED = ("model", "commit", "builder", "image")


@dataclass(frozen=True, kw_only=True)
class FirstRelease(Release):
    """Version 1: without a compile step, its image holds the exported model itself."""

    VERSION = 1
    PARENTS = _roles("image guard data weights exported regression")


@dataclass(frozen=True, kw_only=True)
class Promotion(Record):
    """A release runs in an environment from this generation on; `previous` is the promotion that it replaces."""

    TYPE = "helix.promotion"
    PARENTS = _roles("release", "previous")
    REQUIRED = ("model", "environment", "generation")


@dataclass(frozen=True, kw_only=True)
class Revocation(Record):
    """A release, promotion, image or key (`kind`, `target`) is revoked from `since` on."""

    TYPE = "helix.revocation"
    REQUIRED = ("kind", "target", "since", "index", "reason")


_ALL = (
    GuardVerdict, DataCommit, TrainedWeights, ExportedModel, CompiledEngine, RegressionVerdict, ImageBuild, Release,
    FirstRelease, Promotion, Revocation,
)  # fmt: skip
RECORD_TYPES: Mapping[tuple[str, int], type[Record]] = MappingProxyType(
    {(kind.TYPE, kind.VERSION): kind for kind in _ALL}
)

_Kind = TypeVar("_Kind", bound=Record)
_KEYS = {"type", "version", "parents", "parameters", "outputs", "seed", "target", "machine_class"}


def from_json(value: Json) -> Record:
    """Make the record that `value` (parsed JSON) describes. Raises RecordError."""
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise RecordError(f"a record has exactly the keys {sorted(_KEYS)}")
    named = isinstance(value["type"], str) and type(value["version"]) is int
    kind = RECORD_TYPES.get((value["type"], value["version"])) if named else None
    if kind is None:
        raise RecordError(f"unknown record type {value['type']!r} version {value['version']!r}")
    if not isinstance(value["parents"], dict) or not isinstance(value["parameters"], dict):
        raise RecordError(f"{kind.TYPE}: parents and parameters are objects")
    if not isinstance(value["outputs"], list):
        raise RecordError(f"{kind.TYPE}: outputs is a list")
    record = kind(
        parents=value["parents"],
        parameters=value["parameters"],
        outputs=tuple(Artifact.from_json(item) for item in value["outputs"]),
        seed=_seed(value["seed"]),
        target=_text(value["target"]),
        machine_class=_text(value["machine_class"]),
    )
    # One identity per record: a second spelling of the same content is refused.
    try:
        canonical = dumps(value) == record.to_bytes()
    except CanonicalError as error:
        raise RecordError(f"{kind.TYPE}: {error}") from error
    if not canonical:
        raise RecordError(f"{kind.TYPE}: the record is not in its canonical form")
    return record


def embedded(value: Json, kind: type[_Kind], where: str) -> _Kind:
    """The record of type `kind` that stands at `where` of a signed statement. Raises RecordError, naming `where`."""
    try:
        record = from_json(value)
    except (RecordError, CanonicalError) as error:
        raise RecordError(f"{where}: {error}") from error
    if not isinstance(record, kind):
        raise RecordError(f"{where} is a {record.TYPE}")
    return record


def parse(data: bytes) -> Record:
    """Read a record from its canonical JSON. Raises RecordError."""
    try:
        return from_json(loads(data))
    except CanonicalError as error:
        raise RecordError(str(error)) from error


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > _SEED_DIGITS:
        raise RecordError(f"a seed is a decimal string, not {value!r}")
    return int(value)


def _check_digest(value: object) -> str:
    try:
        return check_digest(value)
    except CanonicalError as error:
        raise RecordError(str(error)) from error


def _is_relative(name: str) -> bool:
    """A path that stays inside the folder it is joined to; outputs are written to disk under their names."""
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RecordError(f"expected a string or null, not {value!r}")
    return value
