"""Export: weights → `ExportedModel`, graphs and tables that a runner loads.

Takes the weights' folder; the model's hook writes the graphs. Runs as a Nix derivation.
"""

from __future__ import annotations

from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import ExportedModel
from model_to_metal.errors import StageError
from model_to_metal.stages.interface import Runs, StageSpec, StageTask, hook

SPEC = StageSpec(
    name="export",
    record=ExportedModel,
    runs=Runs.DERIVATION,
    environment="build",
    hook=("stages", "export"),
    # The derivation is shown the contract too, so a hook may read it.
    reads=("model.toml",),
    attribute="exported",
)


def make(task: StageTask) -> dict[str, Json]:
    """Call the hook `export(weights, output)`. Raises StageError when it writes nothing."""
    hook(task.model, "export")(task.input("weights"), task.output)
    if not any(task.output.iterdir()):
        raise StageError("the hook [stages] export wrote nothing", where=str(task.model / "model.toml"))
    return {}
