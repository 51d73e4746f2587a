"""How long does one design take, from a backbone's arrays to a sequence with its log-probabilities?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, alternate, time_row
from benchmarks.setting import PEER, Setting, design

CASES = (
    ("L = 76", "pdb1ubi.pdb", {"x86-64-v4": 5.0, "x86-64-v3": 3.0}),
    ("L = 345", "1pwc.pdb", {"x86-64-v4": 7.0, "x86-64-v3": 4.0}),
)
"""Label, structure, and by variant what is promised."""

QUESTIONS = tuple(
    f"one design, {label}, {kind}" for label, _, _ in CASES for kind in ("x86-64-v4", "x86-64-v3", "ONNX Runtime")
)
METHOD = "encode and decode all residues, temperature 0.1; structure parsed before"


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """A row for each structure and each variant of the kernels."""
    for label, name, promised in CASES:
        backbone = setting.backbone(name)
        runs = {variant: design(setting.native(variant), backbone, 1) for variant in setting.variants()}
        if not quick:
            runs["onnxruntime"] = design(setting.onnxruntime(), backbone, 1)
        times = alternate({**runs, "upstream": setting.upstream(name, 1)}, 3 if quick else 11)
        peer = times["upstream"]
        for variant in setting.variants():
            question = f"one design, {label}, {variant}"
            yield time_row(question, times[variant], peer, PEER, at_least=promised[variant], method=METHOD)
        if not quick:
            question = f"one design, {label}, ONNX Runtime"
            yield time_row(question, times["onnxruntime"], peer, PEER, at_least=None, method=METHOD)
