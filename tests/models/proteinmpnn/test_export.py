"""Export: the same bytes wherever it runs, and weights only sliced, never computed with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

import onnx  # after the check for torch
from onnx import numpy_helper

from helixserve.runners import open_runner
from proteinmpnn_model.errors import WeightsError
from proteinmpnn_model.export import GRAPHS, export
from proteinmpnn_model.weights import load_weights

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = "import sys, pathlib; from proteinmpnn_model.export import export; export(*map(pathlib.Path, sys.argv[1:]))"


def _export_elsewhere(weights: Path, source: Path, output: Path, hash_seed: str) -> dict[str, bytes]:
    """Export in another process, from a copy of the source at `source`."""
    shutil.copytree(ROOT / "models" / "proteinmpnn" / "src", source)
    paths = [
        str(source),
        str(ROOT / "platform" / "src"),
        str(ROOT / "lineage" / "src"),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", SCRIPT, str(weights), str(output)], env=environment, check=True)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_two_processes_from_two_checkouts_give_the_same_bytes(weights: Path, tmp_path: Path) -> None:
    one = _export_elsewhere(weights, tmp_path / "a", tmp_path / "out-a", "1")
    other = _export_elsewhere(weights, tmp_path / "a much longer folder" / "b", tmp_path / "out-b", "2")
    assert set(one) == {f"{name}.onnx" for name in GRAPHS}
    assert one == other
    assert not any(str(tmp_path).encode() in data or b".py" in data for data in one.values())


def test_another_weight_gives_other_bytes(weights: Path) -> None:
    """The comparison bites: the last bit of one weight shows."""
    tensors = load_weights(weights)
    before = GRAPHS["encoder"](tensors)
    changed = tensors["encoder_layers.1.W2.weight"].copy()
    changed[5, 7] = np.nextafter(changed[5, 7], np.float32(9))
    assert GRAPHS["encoder"]({**tensors, "encoder_layers.1.W2.weight": changed}) != before


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_are_sliced_and_not_computed_with(name: str, weights: Path) -> None:
    tensors = load_weights(weights)
    known = {"centres"}
    for constant in onnx.load_from_string(GRAPHS[name](tensors)).graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.size > 100:
            tensor, _, columns = constant.name.removesuffix("]").partition("[")
            start, _, stop = columns.partition(":")
            expected = tensors[tensor][:, int(start) : int(stop)] if columns else tensors[tensor]
            assert values.tobytes() == np.ascontiguousarray(expected).tobytes()
        elif values.dtype == np.float32 and values.ndim:
            assert constant.name in known or values.tobytes() == tensors[constant.name].tobytes()


def test_every_weight_is_used(weights: Path) -> None:
    tensors = load_weights(weights)
    used: dict[str, int] = {}
    for write in GRAPHS.values():
        sizes = {c.name: int(np.prod(c.dims)) for c in onnx.load_from_string(write(tensors)).graph.initializer}
        for name, size in sizes.items():
            tensor = name.partition("[")[0]
            used[tensor] = used.get(tensor, 0) + size
    # Of W1 in the encoder's first layer the parts that take nodes see zeros only, and are left out.
    first = {"encoder_layers.0.W1.weight": 2 * 128 * 128}
    assert all(used[name] >= tensor.size - first.get(name, 0) for name, tensor in tensors.items())


def test_residue_tables_are_the_embedding_times_w1(weights: Path) -> None:
    tensors = load_weights(weights)
    runner = open_runner("onnxruntime", {"residue_tables": GRAPHS["residue_tables"](tensors)})
    found = runner.run("residue_tables", {"residues": np.arange(21)})
    for layer in range(3):
        part = tensors[f"decoder_layers.{layer}.W1.weight"][:, 256:384].astype(np.float64)
        assert np.abs(found[f"table_{layer}"] - tensors["W_s.weight"].astype(np.float64) @ part.T).max() < 1e-5


def test_without_weights_it_says_what_is_absent(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
