"""A small writer of ONNX graphs: operators as method calls, values by name.

The bytes depend on nothing but the calls: no metadata, no producer, no source path, nodes and
names in the order of the calls, and protobuf serialised deterministically.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 20
IR_VERSION = 10
_TYPES = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64}


class GraphWriter:
    """Collects one graph.

    Args:
        name: the graph's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def input(self, name: str, datatype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; a text in `shape` is an extent known at run time only."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[datatype], list(shape)))
        return name

    def output(self, name: str, value: str, datatype: str, shape: Sequence[int | str]) -> None:
        """Give `value` out under `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[datatype], list(shape)))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """An initialiser; the same name again is the same constant."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        """An INT64 vector."""
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        """An FP32 scalar."""
        return self.constant(f"number_{value!r}", np.array(value, dtype=np.float32))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; gives the output's name."""
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def pair(self, kind: str, *inputs: str, **attributes: Any) -> tuple[str, str]:
        """Add a node with two outputs."""
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [f"{name}_a", f"{name}_b"], name=name, **attributes))
        return f"{name}_a", f"{name}_b"

    def add(self, first: str, *others: str) -> str:
        """Sum from left to right."""
        for other in others:
            first = self.op("Add", first, other)
        return first

    def serialise(self) -> bytes:
        """The bytes of the model. Raises onnx.checker.ValidationError when the graph is not valid."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=[*self._constants.values()]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = ""
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
