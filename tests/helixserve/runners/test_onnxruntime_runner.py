from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from helixserve.errors import ContractError
from helixserve.runners import RUNNERS, open_runner
from tests.helixserve.support import ROOT, tiny_graph


def test_a_graph_runs_and_gives_outputs_by_name() -> None:
    ran = open_runner("onnxruntime", {"tiny": tiny_graph()}).run("tiny", {"x": np.ones((1, 8), np.float32)})
    assert {name: (array.shape, array.dtype) for name, array in ran.items()} == {"y": ((1, 8), np.dtype(np.float32))}


def test_two_sessions_and_many_runs_give_the_same_bits() -> None:
    first, second = (open_runner("onnxruntime", {"tiny": tiny_graph()}) for _ in range(2))
    x = np.linspace(-3, 3, 8, dtype=np.float32)[None]
    bits = {runner.run("tiny", {"x": x})["y"].tobytes() for runner in (first, second) for _ in range(20)}
    assert len(bits) == 1


def test_an_unknown_runner_or_graph_is_refused_without_fallback() -> None:
    with pytest.raises(ContractError, match=next(iter(RUNNERS))):
        open_runner("tensorrt", {})
    with pytest.raises(ContractError, match="no graph"):
        open_runner("onnxruntime", {"tiny": tiny_graph()}).run("other", {})


def test_bytes_that_are_no_graph_are_refused_naming_it() -> None:
    with pytest.raises(ContractError, match="broken"):
        open_runner("onnxruntime", {"broken": b"not a graph"})


@pytest.mark.parametrize("relative", [True, False])
def test_external_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    """Weights outside the hashed bytes would be weights that nobody checked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(256))
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 8], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights.bin" if relative else str(tmp_path / "weights.bin"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "external",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ContractError):
        open_runner("onnxruntime", {"external": model.SerializeToString()})


RUN = """
import numpy as np
{first}
from helixserve.runners import open_runner
from tests.helixserve.support import tiny_graph
open_runner("onnxruntime", {{"tiny": tiny_graph()}}).run("tiny", {{"x": np.ones((1, 8), np.float32)}})
"""


@pytest.mark.parametrize(("first", "silent"), [("", True), ("import onnxruntime", False)])
def test_nothing_is_reported_to_the_makers_of_the_library(tmp_path: Path, first: str, silent: bool) -> None:
    """Its telemetry keeps an identifier and unsent events under the user's folder; planted: the library as it comes."""
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # Where it runs as a check of somebody's, the library is silent of itself.
    away = ("HELIX_", "ORT_", "XDG_", "CI", "GITHUB_", "PYTEST", "TF_BUILD", "JENKINS", "BUILD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(away)}
    command = [sys.executable, "-c", RUN.format(first=first)]
    subprocess.run(command, check=True, cwd=ROOT, env=kept | places, capture_output=True)
    assert (list(tmp_path.rglob("*")) == []) is silent
