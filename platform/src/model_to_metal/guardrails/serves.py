"""Serves: the model imports in the serve environment and answers one request.

Starts `guardrails.infer` as a child, so that a crash is a finding. The guard already runs in a
sandbox: no network, sources and artifacts read-only.

- The model is loaded and answers within LIMIT_S, and its process ends well.
- Its answer keeps the contract, and it loads nothing that the serve image does not hold (`guardrails.inference`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from model_to_metal.guardrails import infer
from model_to_metal.guardrails.finding import GuardFinding

RULE = "serves"

LIMIT_S = 300


def check(model: Path, artifacts: Path) -> list[GuardFinding]:
    """Findings from importing the model and serving the request of `[guard]` with `artifacts`."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(model / "src"), environment.get("PYTHONPATH", "")])
    argv = [sys.executable, "-P", "-m", infer.__name__, str(model), str(artifacts)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return [_finding(f"one inference took longer than {LIMIT_S} s")]
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return [_finding(lines[-1])]
    return []


def _finding(message: str) -> GuardFinding:
    return GuardFinding(
        "model.toml", 0, RULE, message, "mend the model, or what it imports; the serve environment has no torch"
    )
