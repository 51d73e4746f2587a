from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from helixserve.errors import ContractError
from helixserve.runners import RUNNERS, open_runner
from tests.helixserve.support import tiny_graph


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
