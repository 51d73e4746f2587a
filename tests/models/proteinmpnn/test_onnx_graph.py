"""The writer of graphs: bytes depend on the calls alone."""

from __future__ import annotations

import numpy as np
import pytest

from helixserve.runners import open_runner

onnx = pytest.importorskip("onnx", reason="needs onnx; run: make test-torch")

from proteinmpnn_model.onnx_graph import GraphWriter  # noqa: E402  # after the check for onnx


def _small(scale: float = 2.0) -> bytes:
    graph = GraphWriter("small")
    values = graph.input("values", "FP32", ["n", 3])
    doubled = graph.op("Mul", values, graph.number(scale))
    top, places = graph.pair("TopK", graph.add(doubled, values, values), graph.integers(2), largest=1)
    graph.output("top", top, "FP32", ["n", 2])
    graph.output("places", places, "INT64", ["n", 2])
    return graph.serialise()


def test_a_graph_computes_what_was_called() -> None:
    found = open_runner("onnxruntime", {"small": _small()}).run("small", {"values": np.array([[1, 5, 3]], np.float32)})
    assert found["top"].tolist() == [[20.0, 12.0]]
    assert found["places"].tolist() == [[1, 2]]


def test_the_same_calls_give_the_same_bytes_and_others_do_not() -> None:
    assert _small() == _small()
    assert _small() != _small(3.0)


def test_nothing_but_the_graph_is_written() -> None:
    model = onnx.load_from_string(_small())
    assert (model.producer_name, model.producer_version, model.doc_string, model.domain) == ("", "", "", "")
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_a_constant_is_kept_once_and_a_scalar_stays_one() -> None:
    graph = GraphWriter("constants")
    assert graph.number(1.5) == graph.number(1.5)
    value = graph.input("x", "FP32", [2])
    graph.output("y", graph.op("Add", value, graph.number(1.5)), "FP32", [2])
    (constant,) = onnx.load_from_string(graph.serialise()).graph.initializer
    assert list(constant.dims) == []


def test_a_graph_that_is_not_valid_is_refused() -> None:
    graph = GraphWriter("broken")
    graph.output("y", graph.op("Add", graph.input("x", "FP32", [2]), "nobody"), "FP32", [2])
    with pytest.raises(onnx.checker.ValidationError):
        graph.serialise()
