"""What `platform/nix/stages.nix` knows of the stages that are derivations.

Nix reads no Python, so what the stages declare and the workflow orders is written as JSON and
committed; a test compares. Write it again with `make render`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from model_to_metal.stages import interface as stages
from model_to_metal.stages.interface import Runs
from model_to_metal.targets import TARGETS
from model_to_metal.workflows.release import STEPS

FILE = Path("platform/nix/stages.json")


def derivations() -> str:
    """JSON: attribute → stage, module, hook in `model.toml`, inputs (role → attribute), target → inputs more."""
    specs = {step.stage: stages.spec(step.stage) for step in STEPS}
    found = {}
    for step in STEPS:
        spec = specs[step.stage]
        if spec.runs is Runs.DERIVATION:
            inputs = {role: spec.checks.get(role) or specs[parent].attribute for role, parent in step.parents}
            found[str(spec.attribute)] = {
                "stage": spec.name,
                "module": f"model_to_metal.stages.{stages.stages()[spec.name]}",
                "hook": spec.hook,
                "inputs": inputs,
                "targets": {name: target.inputs for name, target in TARGETS.items()} if "target" in spec.shown else {},
            }
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else FILE).write_text(derivations(), encoding="utf-8")
