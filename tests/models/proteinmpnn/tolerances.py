"""How far a log-probability (nat) may lie from the network in float64.

Every accuracy that a test or the gate judges keeps a factor 2 to its limit, on every processor:
tests compare with half the limit. The model card lists what was measured where.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"

NATIVE = float(tomllib.loads((MODEL / "model.toml").read_text())["tolerances"]["log_probability"])
"""Of the native kernels, which give the same bits everywhere: the gate's limit."""

GRAPHS = 2e-4
"""Of the graphs in ONNX Runtime, which chooses its code by the processor."""

DOUBLE = 1e-9
"""Of two computations in float64."""

GOLDEN = 3e-6
"""Of a golden number, which is written in float64 with six decimals, when it is written again."""

MARGIN = 2
"""The factor that a judged number keeps to its limit."""
