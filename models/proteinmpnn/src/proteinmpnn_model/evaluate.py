"""What the regression gate measures: the compiled engine against the reference and the golden cases.

Gives one row a measurement: `{"case", "metric", "value", "allowed"}`. A NaN counts as infinitely far.

The reference is the network in float64: torch's float32 is another function on every kind of
processor, up to 1.4e-4 nat from float64. Its own distance is measured too and only reported
(`allowed` is None). Distances are rounded up to three digits, so that what is judged is recorded
alike on every processor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_lineage.formats.typed import encode
from helixserve.model import sampling, tensors as typed
from helixserve.model.contract import Contract
from helixserve.runners import machine
from proteinmpnn_model.errors import DataError
from proteinmpnn_model.featurize import Backbone, featurize
from proteinmpnn_model.model import ProteinMPNN
from proteinmpnn_model.reference import ReferenceDecoder
from proteinmpnn_model.structures.structure import read_structure, sniff_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_lineage.formats.typed import Tensor
    from proteinmpnn_model.decode import SequenceDecoder

Row = dict[str, Any]

PARITY = ("pdb1ubi.pdb", "pdb1ejg.pdb", "pdb1ake.pdb", "1A8O.cif", "1LCD.pdb", "2BEG.pdb", "2n0n_M1.pdb", "4ZHL.cif")
"""Structures on which the graphs are compared with the reference."""

TOGETHER = "pdb1ubi.pdb"
"""The structure whose designs are made alone and together."""

_DIGITS = Context(prec=3, rounding=ROUND_CEILING)

METRICS = {
    "log_probability": "largest difference of a log-probability (nat)",
    "golden_mismatches": "residues that differ",
    "differing_items": "items that differ in any byte",
}


def evaluate(artifacts: Path, weights: Path, data: Path, golden: Path) -> list[Row]:
    """Measure the engine in `artifacts`. Raises DataError when structures or golden cases are absent.

    Args:
        artifacts: output of stage compile.
        weights: output of stage import, for the reference.
        data: the data folder, with `structures/`.
        golden: golden cases; `model.toml` lies beside the folder.
    """
    contract = Contract.load(golden.parent / "model.toml")
    allowed: Mapping[str, float] = contract.document["tolerances"]
    model, again = load(artifacts, contract), load(artifacts, contract)
    alone, widths = f"{TOGETHER}, alone and together", f"{TOGETHER}, by the kernels of x86-64-v4 and of x86-64-v3"
    # A processor without AVX-512 measures its own kernels alone, and its verdict has no such row.
    both = machine.widest() == machine.V4 and narrow(contract) != contract
    narrower = [load(artifacts, narrow(contract))] if both else []
    return [
        *_parity(model.decoder, weights, data, allowed),
        *_golden(model, data, golden, allowed),
        _row(alone, "differing_items", differing_items(model, again, data), allowed),
        *(_row(widths, "differing_items", differing_items(model, other, data), allowed) for other in narrower),
    ]


def narrow(contract: Contract) -> Contract:
    """The contract less the kernels that only a wide processor runs: the rest runs on every machine of the class."""
    kept = tuple(name for name in contract.artifacts if not name.endswith(f"{machine.V4}.so"))
    return replace(contract, artifacts=kept)


def load(artifacts: Path, contract: Contract) -> ProteinMPNN:
    """The model on the graphs of a folder, opened anew."""
    return ProteinMPNN.load({name: (artifacts / name).read_bytes() for name in contract.artifacts}, contract)


def deviation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute difference, rounded up; infinite for a NaN, for other shapes, and for no numbers at all."""
    if found.shape != expected.shape or not found.size:
        return math.inf
    with np.errstate(invalid="ignore"):
        worst = float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64))))
    return float(_DIGITS.create_decimal_from_float(worst)) if math.isfinite(worst) else math.inf


def mismatches(found: str, expected: str) -> float:
    """Letters that differ; infinite for texts of other length."""
    return sum(a != b for a, b in zip(found, expected, strict=True)) if len(found) == len(expected) else math.inf


def ask(model: ProteinMPNN, task: str, values: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """The answers to a request of plain values: output name → tensor, for each item."""
    resolved = _resolve(model, task, values)
    return [{tensor.name: tensor for tensor in item} for item in model.predict(resolved, range(model.count(resolved)))]


def differing_items(one: ProteinMPNN, other: ProteinMPNN, data: Path, count: int = 4) -> int:
    """How many of `count` designs that `one` makes together have other bytes when `other` makes each alone."""
    values = {"structure": read_text(data, TOGETHER), "num_sequences": count, "temperature": 1.0, "seed": 0}
    resolved = _resolve(one, "design", values)
    try:
        together = [encode(item) for item in one.predict(resolved, range(count))]
        alone = [encode(item) for number in reversed(range(count)) for item in other.predict(resolved, [number])]
    except ValueError:  # nothing can be drawn from probabilities that are NaN
        return count
    return sum(a != b for a, b in zip(together, reversed(alone), strict=True))


def golden_cases(golden: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of every golden case, sorted by name. Raises DataError when there is none."""
    paths = sorted(golden.glob("*.json"))
    if not paths:
        raise DataError("there are no golden cases", where=str(golden), fix="python -m proteinmpnn_model.golden --help")
    for path in paths:
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def read_text(data: Path, name: str) -> str:
    """The text of a structure of the data folder. Raises DataError."""
    path = data / "structures" / name
    if not path.is_file():
        raise DataError("the structure is absent", where=str(path), fix="dvc repro models/proteinmpnn/dvc.yaml")
    return path.read_text(encoding="utf-8")


def _parity(decoder: SequenceDecoder, weights: Path, data: Path, allowed: Mapping[str, float]) -> Iterator[Row]:
    single, double = (ReferenceDecoder(weights, double=double) for double in (False, True))
    for name in PARITY:
        text = read_text(data, name)
        backbone = featurize(read_structure(text, sniff_format(text), residue_limit=10**6))
        expected = _log_probabilities(double, backbone)
        worst = deviation(_log_probabilities(decoder, backbone), expected)
        yield _row(f"{name} against the network in float64", "log_probability", worst, allowed)
        noise = deviation(_log_probabilities(single, backbone), expected)
        yield _row(f"{name}: the network in float32 against itself in float64", "log_probability", noise, None)


def _log_probabilities(decoder: SequenceDecoder, backbone: Backbone) -> NDArray[Any]:
    """Of the structure's own sequence, in one fixed order."""
    order_l = sampling.permutation(0, len(backbone))
    return decoder.decode(backbone, decoder.encode(backbone), backbone.native, order_l).log_probabilities_la


def _golden(model: ProteinMPNN, data: Path, golden: Path, allowed: Mapping[str, float]) -> Iterator[Row]:
    for name, case in golden_cases(golden):
        values = {"structure": read_text(data, case["structure"]), **case["inputs"]}
        try:
            items = ask(model, case["task"], values)
        except ValueError:  # nothing can be drawn from probabilities that are NaN; no answer is infinitely far
            items = []
        expected = case["items"]
        differing = [
            mismatches(str(typed.scalar(item["sequence"])), wanted["sequence"])
            for item, wanted in zip(items, expected, strict=False)
        ]
        yield _row(name, "golden_mismatches", _worst(differing, len(items) == len(expected)), allowed)
        far = [
            deviation(typed.to_array(item[output]), np.array(wanted[output]))
            for item, wanted in zip(items, expected, strict=False)
            for output in ("log_probability", "log_probabilities")
            if output in wanted
        ]
        yield _row(name, "log_probability", _worst(far, len(items) == len(expected)), allowed)


def _resolve(model: ProteinMPNN, task: str, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
    inputs = model.contract.task(task).inputs
    given = [typed.from_value(name, inputs[name].datatype, value) for name, value in values.items()]
    return model.resolve(task, given, lambda: 0)


def _worst(values: Iterable[float], complete: bool) -> float:
    return max(values, default=math.inf) if complete else math.inf


def _row(case: str, metric: str, value: float, allowed: Mapping[str, float] | None) -> Row:
    """A measurement; without `allowed` it is reported and not judged. A tolerance that is absent is an error."""
    limit = None if allowed is None else allowed[metric]
    return {"case": case, "metric": METRICS[metric], "value": value, "allowed": limit}
