"""ONNX Runtime on the CPU, set up so that the same inputs give the same bits.

One thread, operators one after another, graph optimisation at EXTENDED at most: the ALL level
chooses layouts by the machine at hand. Sessions come from bytes that the caller has hashed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# Read when the library is loaded. Without it ONNX Runtime (from 1.29 on) sends events about each process, session and
# model to its makers, and keeps an identifier of this machine on the disk (its Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from helixserve.errors import ContractError
from helixserve.runners.interface import Runner

if TYPE_CHECKING:
    import numpy as np

    from helixserve.runners.interface import Arrays


class OnnxRuntimeRunner(Runner):
    """Holds one session a graph.

    Args:
        graphs: graph name → serialised ONNX model without external data.
        libraries: none are used.
    """

    def __init__(self, graphs: Mapping[str, bytes], libraries: Mapping[str, bytes]) -> None:  # noqa: ARG002
        self._sessions = {name: _open(name, data) for name, data in graphs.items()}
        self._outputs = {
            name: [output.name for output in session.get_outputs()] for name, session in self._sessions.items()
        }

    def run(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """Run one session on arrays of its declared types and shapes."""
        session = self._sessions.get(graph)
        if session is None:
            raise ContractError(f"the release holds no graph {graph!r}", where=", ".join(sorted(self._sessions)))
        return dict(zip(self._outputs[graph], session.run(self._outputs[graph], dict(inputs)), strict=True))


def _open(name: str, data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.use_deterministic_compute = True
    # Warnings of the optimiser would drown the server's log; errors are raised anyway.
    options.log_severity_level = 3
    # Weights outside the graph's bytes would be weights that nobody hashed: there is no such folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null/nowhere")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds; all mean: not a model that it can run
        raise ContractError(f"ONNX Runtime cannot load the graph: {error}", where=name) from error
