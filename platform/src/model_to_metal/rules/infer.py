"""One inference in the serve environment: `python -m model_to_metal.rules.infer MODEL ARTIFACTS`.

The request stands in `model.toml`:

    [guard]
    task = "design"
    files = { structure = "golden/1ubi.pdb" }       # BYTES inputs, from files of the model's folder
    inputs = { num_sequences = 1, seed = 0 }

Exit status 0 when the answer keeps the contract; otherwise the last line of stderr says why not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helix_lineage.typed import Tensor
from helixserve.machine import pin_numpy

FORBIDDEN = ("torch", "model_to_metal.engine")
"""What the serve image does not hold, so a model that serves may not load it."""


def main(arguments: Sequence[str]) -> int:
    """Serve one request; prints what is wrong to stderr."""
    model, artifacts = map(Path, arguments)
    pin_numpy()
    try:
        problem = infer(model, artifacts)
    # Whatever a model raises is the finding.
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        sys.stderr.write(" ".join(problem.split()) + "\n")
    return 1 if problem else 0


def infer(folder: Path, artifacts: Path) -> str | None:
    """What is wrong with the model's answer to the request of `[guard]`, or None."""
    from helixserve.contract import Contract, load_class

    contract = Contract.load(folder / "model.toml")
    guard = contract.document.get("guard")
    if not isinstance(guard, dict) or guard.get("task") not in contract.tasks:
        return "model.toml has no [guard] with the task of one request"
    task = contract.tasks[guard["task"]]
    loaded = {name: (artifacts / name).read_bytes() for name in contract.artifacts}
    model = load_class(contract).load(loaded, contract)
    resolved = model.resolve(task.name, _tensors(folder, guard, task), lambda: 0)
    outputs = {tensor.name: tensor for tensor in next(iter(model.predict(resolved, [0])))}
    if set(outputs) != set(task.outputs):
        return f"the answer has the outputs {sorted(outputs)}, the contract {sorted(task.outputs)}"
    for name, wanted in task.outputs.items():
        wanted.check(outputs[name])
        if _has_nan(outputs[name]):
            return f"the output {name} holds a NaN or an infinity"
    loaded_modules = [name for name in FORBIDDEN if name in sys.modules]
    return f"serving loads {', '.join(loaded_modules)}" if loaded_modules else None


def _tensors(folder: Path, guard: dict[str, Any], task: Any) -> list[Tensor]:
    from helixserve import tensors

    values = {name: (folder / path).read_text(encoding="utf-8") for name, path in guard.get("files", {}).items()}
    values |= guard.get("inputs", {})
    return [tensors.from_value(name, task.inputs[name].datatype, value) for name, value in values.items()]


def _has_nan(tensor: Tensor) -> bool:
    import numpy as np

    from helixserve import tensors

    return tensor.datatype.startswith("FP") and not bool(np.isfinite(tensors.to_array(tensor)).all())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
