"""Attest: commit, image, all records and verdicts → `Release`.

Makes the record only. Signing it is `model_to_metal.supply_chain.attest`, which runs platform code alone:
no researcher's code ever runs where a key can be reached.
"""

from __future__ import annotations

from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import ImageBuild, Release
from model_to_metal.errors import StageError
from model_to_metal.stages.interface import Runs, StageSpec, StageTask

SPEC = StageSpec(
    name="attest",
    record=Release,
    runs=Runs.SIGNER,
    environment="host",
    parameters=("model", "commit", "builder"),
    keeps_files=False,
)


def make(task: StageTask) -> dict[str, Json]:
    """Name the image that the release speaks of; writes no file. Raises StageError."""
    build = task.parents.get("image")
    if not isinstance(build, ImageBuild):
        raise StageError("the stage needs --parent image=RECORD, an image build")
    return {"image": build.parameters["image"]}
