"""What is settled about every stage of a release before it is submitted.

The workflow's parameter `plan` is the digest of an order, which lies in the registry: canonical
JSON that names, by digest, everything that the stages' pods need. Same commit, same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import check_digest, dumps, loads
from helix_lineage.records.chain import Record
from model_to_metal.errors import WorkflowError
from model_to_metal.pipeline.cache import Key
from model_to_metal.stages.interface import StageSettings

VERSION = 1


@dataclass(frozen=True, slots=True)
class Given:
    """Files that a stage gets besides its parents'."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Name → digest of a blob, for what is there already."""
    recipe: str | None = None
    """Digest of the steps that make them; see `recipe`."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in an order."""
        return {"files": dict(self.files), "recipe": self.recipe}


@dataclass(frozen=True, slots=True)
class StageOrder:
    """One stage of an order."""

    plan: StageSettings
    code: str
    """Digest of the stage's import closure."""
    environment: str
    """Digest of what its environment is made from."""
    inputs: Mapping[str, str]
    """Role → digest of sources that its cache key covers besides."""
    sources: str
    """Digest of an archive with all that it is shown of the checkout."""
    given: Mapping[str, Given] = field(default_factory=dict)
    """Role → files besides the parents'."""

    def key(self, stage: str, parents: Mapping[str, Record]) -> Key:
        """The stage's cache key, the same that the local engine has."""
        return Key.of(stage, self, parents)

    def to_json(self) -> dict[str, Any]:
        """As it stands in an order."""
        return {
            "plan": self.plan.to_json(),
            "code": self.code,
            "environment": self.environment,
            "inputs": dict(self.inputs),
            "sources": self.sources,
            "given": {role: given.to_json() for role, given in self.given.items()},
        }


@dataclass(frozen=True, slots=True)
class Order:
    """A release that is to be made."""

    model: str
    releasing: bool
    """Whether it ends in a signed release: then only what the same builder recorded counts."""
    stages: Mapping[str, StageOrder]
    environments: Mapping[str, str]
    """`build` or `serve` → where the pipeline image holds that environment."""
    evidence: tuple[str, ...] = ()
    """Blobs that records name by digest: lists of sources, and locks."""

    def to_bytes(self) -> bytes:
        """The canonical JSON that the parameter `plan` is the digest of."""
        return dumps(
            {
                "version": VERSION,
                "model": self.model,
                "releasing": self.releasing,
                "stages": {name: stage.to_json() for name, stage in self.stages.items()},
                "environments": dict(self.environments),
                "evidence": list(self.evidence),
            }
        )

    def blobs(self) -> list[str]:
        """Every blob that it names, each once."""
        found = list(self.evidence)
        for stage in self.stages.values():
            found.append(stage.sources)
            for given in stage.given.values():
                found += [*given.files.values(), *([given.recipe] if given.recipe else [])]
        return list(dict.fromkeys(found))

    @classmethod
    def from_bytes(cls, data: bytes) -> Order:
        """Read an order. Raises WorkflowError."""
        try:
            value = loads(data)
            if value["version"] != VERSION:
                raise WorkflowError(f"an order of version {value['version']!r}; this image reads version {VERSION}")
            return cls(
                model=str(value["model"]),
                releasing=value["releasing"] is True,
                stages={name: _stage(row) for name, row in value["stages"].items()},
                environments={name: str(path) for name, path in value["environments"].items()},
                evidence=tuple(check_digest(digest) for digest in value["evidence"]),
            )
        except (CanonicalError, KeyError, TypeError, AttributeError) as error:
            raise WorkflowError(f"the order cannot be read: {error!r}") from error


def _stage(row: Mapping[str, Any]) -> StageOrder:
    return StageOrder(
        plan=StageSettings.from_json(row["plan"]),
        code=row["code"],
        environment=row["environment"],
        inputs=row["inputs"],
        sources=check_digest(row["sources"]),
        given={role: _given(given) for role, given in row["given"].items()},
    )


def _given(row: Mapping[str, Any]) -> Given:
    files = {str(name): check_digest(digest) for name, digest in row["files"].items()}
    return Given(files, check_digest(row["recipe"]) if row["recipe"] else None)
