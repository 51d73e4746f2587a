"""Import: locked upstream weights → `TrainedWeights(origin=imported)`.

Takes the data folder; the model's hook writes safetensors. Runs as a Nix derivation.
"""

from __future__ import annotations

from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import TrainedWeights
from model_to_metal.errors import StageError
from model_to_metal.stages.interface import Runs, StageSpec, StageTask, hook

SPEC = StageSpec(
    name="import",
    record=TrainedWeights,
    runs=Runs.DERIVATION,
    environment="build",
    constants={"origin": "imported"},
    hook=("stages", "import"),
    # The derivation is shown the contract too, so a hook may read it.
    reads=("model.toml",),
    checks={"data": "data"},
    attribute="weights",
    target=False,
)


def make(task: StageTask) -> dict[str, Json]:
    """Call the hook `import(data, output)`. Raises StageError when it gives no safetensors."""
    hook(task.model, "import")(task.input("data"), task.output)
    if not any(task.output.glob("*.safetensors")):
        raise StageError("the hook [stages] import wrote no .safetensors file", where=str(task.model / "model.toml"))
    return {}
