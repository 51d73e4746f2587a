"""How many designs a second, of 64 on one backbone?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, alternate, rate_row
from benchmarks.setting import PEER, Setting, design

COUNT = 64
PROMISED = {"x86-64-v4": 30.0, "x86-64-v3": 15.0}
QUESTIONS = tuple(f"64 designs, L = 76, {variant}" for variant in PROMISED)
METHOD = "64 designs of all residues, temperature 0.1, upstream at batch 64"


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """A row for each variant of the kernels."""
    backbone = setting.backbone("pdb1ubi.pdb")
    runs = {variant: design(setting.native(variant), backbone, COUNT) for variant in setting.variants()}
    times = alternate({**runs, "upstream": setting.upstream("pdb1ubi.pdb", COUNT)}, 1 if quick else 3)
    peer = times["upstream"]
    for variant in setting.variants():
        question = f"64 designs, L = 76, {variant}"
        yield rate_row(question, times[variant], peer, PEER, at_least=PROMISED[variant], method=METHOD, count=COUNT)
