"""Writes the golden cases: requests, and the answers of the reference network in float64.

    python -m proteinmpnn_model.golden --weights DIR --data DIR --golden DIR

Run it when the network or the meaning of a request changes on purpose; the diff shows what moved.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helixserve.model import tensors as typed
from helixserve.model.contract import Contract
from proteinmpnn_model.evaluate import ask, read_text
from proteinmpnn_model.model import ProteinMPNN
from proteinmpnn_model.reference import ReferenceDecoder

DECIMALS = 6
"""Of a log-probability: a hundredth of what the tolerance allows."""

CASES: Mapping[str, Mapping[str, Any]] = {
    "design_1ubi": {"task": "design", "structure": "pdb1ubi.pdb", "inputs": {"num_sequences": 2, "seed": 0}},
    "design_1ejg_fixed_hot": {
        "task": "design",
        "structure": "pdb1ejg.pdb",
        "inputs": {"fixed_positions": ["A:3", "A:4", "A:16", "A:26"], "omit": "CX", "temperature": 1.0, "seed": 8},
    },
    "design_2beg_one_of_five_chains": {
        "task": "design",
        "structure": "2BEG.pdb",
        "inputs": {"chains": ["D"], "seed": 18446744073709551615},
    },
    "score_1a8o_native": {"task": "score", "structure": "1A8O.cif", "inputs": {"seed": 0}},
    "score_2n0n_insertion_code_and_gap": {"task": "score", "structure": "2n0n_M1.pdb", "inputs": {"seed": 3}},
}
"""Name → request. No draw of theirs is so close that another processor could make another (a test says so)."""

_NUMBERS = re.compile(r"\[([^][{}\"]*)\]")


def write(golden: Path, weights: Path, data: Path) -> None:
    """Write `<case>.json` for every case into `golden`; `model.toml` lies beside that folder."""
    contract = Contract.load(golden.parent / "model.toml")
    model = ProteinMPNN(ReferenceDecoder(weights, double=True), contract)
    for name, case in CASES.items():
        answers = ask(model, case["task"], {"structure": read_text(data, case["structure"]), **case["inputs"]})
        content = {"format": 1, **case, "items": [plain(answer) for answer in answers]}
        (golden / f"{name}.json").write_text(_readable(content), encoding="utf-8")


def _readable(content: Mapping[str, Any]) -> str:
    """JSON with one row of numbers a line, so that a diff can be read."""
    text = json.dumps(content, indent=1, sort_keys=True)
    return _NUMBERS.sub(lambda row: "[" + ", ".join(row[1].replace(",", " ").split()) + "]", text) + "\n"


def plain(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as a golden case keeps it: the sequence, and log-probabilities to `DECIMALS`."""
    item: dict[str, Any] = {"sequence": typed.scalar(answer["sequence"])}
    for output in ("log_probability", "log_probabilities"):
        if output in answer:
            item[output] = np.round(typed.to_array(answer[output]).astype(np.float64), DECIMALS).tolist()
    return item


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and write. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m proteinmpnn_model.golden", description="Write the golden cases.")
    for name, what in (
        ("weights", "output of stage import"),
        ("data", "data folder"),
        ("golden", "folder to write to"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    options = parser.parse_args(arguments)
    write(options.golden, options.weights, options.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
