"""Triton's extensions of the Open Inference Protocol that its clients ask for, without their wires.

A model's configuration, and the index of the repository: the tasks that are served, and whether they
are ready. Models are not loaded or unloaded by request, so the rest of that extension is not served.

>>> contract = Contract.parse('''
... name = "toy"
... version = "1"
... format = 1
... limits.request_bytes = 1000
... serve = { model = "toy_model.model:Toy", runner = "onnxruntime", artifacts = ["toy.onnx"], lane = "strict" }
... [tasks.measure]
... summary = "How long a text is."
... inputs.text = { datatype = "BYTES", shape = [1], required = true, summary = "A text." }
... outputs.length = { datatype = "INT64", shape = [1], summary = "Characters." }
... ''')
>>> config(contract, contract.task("measure"))["input"]
[{'name': 'text', 'data_type': 'TYPE_STRING', 'dims': [1], 'optional': False}]
"""

from __future__ import annotations

from typing import Any

from helixserve.endpoints import open_inference as protocol
from helixserve.errors import HelixServeError
from helixserve.model.contract import Contract, Task
from helixserve.server import Server


def platform(contract: Contract) -> str:
    """What runs the model, as metadata and configuration call it."""
    return f"helix_{_backend(contract)}"


def _backend(contract: Contract) -> str:
    """A built-in runner's name; of a model's own runner its class."""
    return contract.runner.rpartition(":")[2]


def config(contract: Contract, task: Task) -> dict[str, Any]:
    """The configuration of a task: fields by the names that Triton's JSON and protobuf share."""
    inputs = [
        {**_tensor(metadata), "optional": not task.inputs[metadata.name].required}
        for metadata in protocol.inputs_of(task)
    ]
    return {
        "name": protocol.model_name(contract, task),
        "platform": platform(contract),
        "max_batch_size": 0,
        "input": inputs,
        "output": [_tensor(metadata) for metadata in protocol.outputs_of(task)],
        "backend": _backend(contract),
    }


def index(server: Server, *, ready: bool) -> list[dict[str, str]]:
    """The models of this server; with `ready` those alone that may be asked."""
    state, reason = "READY", ""
    try:
        server.check_ready()
    except HelixServeError as error:
        state, reason = "UNAVAILABLE", str(error)
    if ready and reason:
        return []
    contract = server.contract
    return [
        {
            "name": protocol.model_name(contract, task),
            "version": contract.version,
            "state": state,
            "reason": reason,
        }
        for task in contract.tasks.values()
    ]


def _tensor(metadata: protocol.Metadata) -> dict[str, Any]:
    kind = "STRING" if metadata.datatype == "BYTES" else metadata.datatype
    return {"name": metadata.name, "data_type": f"TYPE_{kind}", "dims": list(metadata.shape)}
