"""Attest: commit, image, all records and verdicts → `Release`.

Makes the record only. Signing it is `model_to_metal.supply_chain.attest`, which runs platform code alone:
no researcher's code ever runs where a key can be reached.
"""

from __future__ import annotations

from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import ImageBuild, Release
from model_to_metal.errors import StageError
from model_to_metal.stages.interface import Made, Task


def make(task: Task) -> dict[str, Json]:
    """Name the image that the release speaks of; writes no file. Raises StageError."""
    build = task.parents.get("image")
    if not isinstance(build, ImageBuild):
        raise StageError("the stage needs --parent image=RECORD, an image build")
    return {"image": build.parameters["image"]}


def record(made: Made) -> Release:
    """The release: which commit, which image, by which builder, on which evidence."""
    return Release(
        parents=made.digests,
        parameters={**made.pick("model", "commit", "builder"), **made.found},
        target=made.plan.target,
    )
