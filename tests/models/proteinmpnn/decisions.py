"""Everything that decides about a model, measured in one process, on the processor that this process sees.

    python -m tests.models.proteinmpnn.decisions ENGINE WEIGHTS DATA [STRUCTURE…]

prints one JSON object: the gate's rows, ours beside upstream, the golden cases written again, and a
digest of the answers. A test runs it with each library's dispatch forced down, or on an emulated
processor, and compares. For the Nix build environment. NUMPY_WITHOUT in the environment names what
numpy's dispatch does without, besides what it never uses.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from helixserve.runners import machine

if __name__ == "__main__":
    machine.pin_numpy()  # before anything loads numpy
    os.environ["NPY_DISABLE_CPU_FEATURES"] += f" {os.environ.get('NUMPY_WITHOUT', '')}"

import numpy as np
import torch

from helix_lineage.formats.typed import encode
from helixserve.model.contract import Contract
from helixserve.model.sampling import permutation, uniforms
from helixserve.runners import open_runner
from proteinmpnn_model import evaluate, golden
from proteinmpnn_model.decode import Choice, Decoder, allowed, decoding_order
from proteinmpnn_model.featurize import featurize
from proteinmpnn_model.model import ProteinMPNN
from proteinmpnn_model.reference import ReferenceDecoder
from proteinmpnn_model.structures.structure import read_structure
from tests.models.proteinmpnn.upstream import Upstream

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"
Found = dict[str, Any]


def decisions(engine: Path, weights: Path, data: Path, structures: list[str]) -> Found:
    """Measure all of it on these structures (PDB files); the golden cases are those about them."""
    evaluate.PARITY, evaluate.TOGETHER = tuple(structures), structures[0]
    with tempfile.TemporaryDirectory() as scratch:
        cases = _cases(Path(scratch), structures)
        rows = evaluate.evaluate(engine, weights, data, cases)
    model = evaluate.load(engine, Contract.load(MODEL / "model.toml"))
    return {
        "dispatch": torch.backends.cpu.get_cpu_capability(),
        "level": machine.widest(),
        "rows": rows,
        "upstream": {name: _upstream(model, _graphs(engine), weights, data, name) for name in structures},
        "golden": {f"float{bits}": _golden(weights, data, structures, double=bits == 64) for bits in (64, 32)},
        "answers": _answers(model, data, structures),
    }


def _cases(scratch: Path, structures: list[str]) -> Path:
    """A folder with the golden cases about the structures, beside the contract."""
    shutil.copy(MODEL / "model.toml", scratch)
    (scratch / "golden").mkdir()
    for path in (MODEL / "golden").glob("*.json"):
        if json.loads(path.read_text())["structure"] in structures:
            shutil.copy(path, scratch / "golden")
    return scratch / "golden"


def _graphs(engine: Path) -> Decoder:
    """The exported graphs in ONNX Runtime."""
    return Decoder(open_runner("onnxruntime", {path.stem: path.read_bytes() for path in engine.glob("*.onnx")}))


def _upstream(model: ProteinMPNN, graphs: Decoder, weights: Path, data: Path, name: str) -> Found:
    """How far our log-probabilities lie from upstream's in float64, and whether it draws the same sequence."""
    path = data / "structures" / name
    structure = read_structure(path.read_text(), "pdb", residue_limit=2000)
    backbone = featurize(structure)
    theirs = Upstream.open(data / "weights" / "v_48_020.pt", path, structure)
    size, free = len(backbone), backbone.mask > 0
    order, drawn = decoding_order(permutation(0, size), free), uniforms(0, size)
    expected = theirs.log_probabilities(backbone.native, order)
    found: Found = {}
    ours = {"native": model.decoder, "graphs": graphs, "float64": ReferenceDecoder(weights, double=True)}
    for kind, decoder in ours.items():
        encoded = decoder.encode(backbone)
        told = decoder.decode(backbone, encoded, backbone.native, order).log_probabilities_la
        found[kind] = float(np.abs(told - expected)[free].max())
    choice = Choice(free, drawn, 1.0, allowed("X"))
    designed = model.decoder.decode(backbone, model.decoder.encode(backbone), backbone.native, order, choice)
    return {**found, "same_sequence": np.array_equal(designed.residues_l, theirs.sample(order, drawn, free, 1.0))}


def _golden(weights: Path, data: Path, structures: list[str], *, double: bool) -> float:
    """Largest difference of a committed golden number from the reference's; infinite for another sequence."""
    model = ProteinMPNN(ReferenceDecoder(weights, double=double), Contract.load(MODEL / "model.toml"))
    worst = 0.0
    for _, case in evaluate.golden_cases(MODEL / "golden"):
        if case["structure"] not in structures:
            continue
        values = {"structure": evaluate.read_text(data, case["structure"]), **case["inputs"]}
        for item, wanted in zip(evaluate.ask(model, case["task"], values), case["items"], strict=True):
            answer = golden.plain(item)
            if answer.pop("sequence") != wanted["sequence"]:
                return float("inf")
            worst = max(worst, *(float(np.abs(np.array(answer[name]) - wanted[name]).max()) for name in answer))
    return worst


def _answers(model: ProteinMPNN, data: Path, structures: list[str]) -> str:
    """A digest of designs at a high temperature and of scores, by the kernels: what a client gets."""
    digest = hashlib.sha256()
    for name in structures:
        text = evaluate.read_text(data, name)
        asked: tuple[tuple[str, Found], ...] = (("design", {"num_sequences": 3, "temperature": 1.0}), ("score", {}))
        for task, more in asked:
            for item in evaluate.ask(model, task, {"structure": text, "seed": 0, **more}):
                digest.update(encode(tuple(item.values())))
    return digest.hexdigest()


def main(engine: str, weights: str, data: str, *structures: str) -> None:
    """Print what was measured."""
    print(json.dumps(decisions(Path(engine), Path(weights), Path(data), list(structures))))


if __name__ == "__main__":
    main(*sys.argv[1:])
