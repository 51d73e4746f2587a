"""Before anything is built: the guard's rules that only read the source.

They take a second, so a pickle or a lock out of step is refused before an export of minutes.
A refusal is a fact like the guard's own verdict: it is recorded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from helix_lineage.records.chain import Record
from helix_lineage.records.store import RecordStore
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import closure
from model_to_metal.stages import guard
from model_to_metal.stages.interface import StageResult, StageSettings, StageTask, record


def read(checkout: Checkout, model: str) -> Record:
    """The verdict of the reading rules on the model's folder, as Git would see it."""
    tree, locks = closure.tree(checkout, model), closure.locks(checkout, model)
    plan = StageSettings({"model": model, "source": tree.digest, "locks": dict(locks.files)})
    with tempfile.TemporaryDirectory(prefix="helix-read-") as scratch:
        tree.copy(checkout.root, Path(scratch))
        folder, output = Path(scratch) / "models" / model, Path(scratch) / "output"
        output.mkdir()
        found = guard.make(StageTask(model=folder, output=output, plan=plan))
    return record(guard.SPEC, StageResult(plan=plan, found=found))


def refusal(checkout: Checkout, store: RecordStore, model: str) -> Record | None:
    """The verdict, recorded, when it is a refusal; None when the source may go on to be built."""
    verdict = read(checkout, model)
    if verdict.parameters["passed"] is True:
        return None
    store.put_bytes(closure.tree(checkout, model).to_bytes())
    store.put_record(verdict)
    return verdict
