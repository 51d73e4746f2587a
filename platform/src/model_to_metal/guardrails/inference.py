"""The guard's inference: does a model, loaded as a server loads it, keep its contract?

The request stands in `model.toml`:

    [guard]
    task = "design"
    files = { structure = "golden/1ubi.pdb" }       # BYTES inputs, from files of the model's folder
    inputs = { num_sequences = 1, seed = 0 }
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from helix_lineage.formats.typed import Tensor
from helixserve.execution.request import check_item
from helixserve.model import tensors
from helixserve.model.contract import Contract, Task, load_class

FORBIDDEN = ("torch",)
"""What the serve image does not hold, so a model that serves may not load it."""


def infer(folder: Path, artifacts: Path) -> str | None:
    """What is wrong with serving the request of `[guard]`, or None.

    Raises HelixServeError for an answer that breaks the contract, and whatever the model raises.
    """
    contract = Contract.load(folder / "model.toml")
    guard = contract.document.get("guard")
    if not isinstance(guard, dict) or guard.get("task") not in contract.tasks:
        return "model.toml has no [guard] with the task of one request"
    task = contract.tasks[guard["task"]]
    loaded = {name: (artifacts / name).read_bytes() for name in contract.artifacts}
    model = load_class(contract).load(loaded, contract)
    resolved = model.resolve(task.name, _request(folder, guard, task), lambda: 0)
    # What a server would refuse to give is refused here, in the same words.
    check_item(task, next(iter(model.predict(resolved, [0]))), None)
    forbidden = [name for name in FORBIDDEN if name in sys.modules]
    return f"serving loads {', '.join(forbidden)}" if forbidden else None


def _request(folder: Path, guard: dict[str, Any], task: Task) -> list[Tensor]:
    values = {name: (folder / path).read_text(encoding="utf-8") for name, path in guard.get("files", {}).items()}
    values |= guard.get("inputs", {})
    return [tensors.from_value(name, task.inputs[name].datatype, value) for name, value in values.items()]
