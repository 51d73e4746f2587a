"""Stock clients of the three doors; each gives the answer as typed tensors, one dictionary an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bentoml
import numpy as np
import tritonclient.grpc
import tritonclient.http

from helix_lineage.typed import Tensor
from helixserve import tensors
from helixserve.contract import Contract


@dataclass(frozen=True)
class Answer:
    """One request's answer."""

    ids: list[str]
    items: list[tuple[Tensor, ...]]
    """The outputs of each item, made again from the wire."""


def _items(stacked: Mapping[str, Any], contract: Contract, task: str) -> list[tuple[Tensor, ...]]:
    """Item i is row i of every output."""
    fields = contract.task(task).outputs
    count = len(next(iter(stacked.values())))
    return [
        tuple(tensors.from_value(name, fields[name].datatype, stacked[name][row]) for name in sorted(fields))
        for row in range(count)
    ]


def by_bentoml(address: str, contract: Contract, task: str, given: Mapping[str, Any]) -> Answer:
    """BentoML's own client, JSON."""
    with bentoml.SyncHTTPClient(address) as client:
        answer = getattr(client, task)(**given)
    rows = answer["predictions"]
    stacked = {name: [row[name] for row in rows] for name in contract.task(task).outputs}
    return Answer([row["prediction_id"] for row in rows], _items(stacked, contract, task))


def by_http(address: str, contract: Contract, task: str, given: Mapping[str, Any]) -> Answer:
    """Triton's client, Open Inference Protocol v2 over HTTP."""
    return _by_triton(tritonclient.http, address.removeprefix("http://"), contract, task, given)


def by_grpc(address: str, contract: Contract, task: str, given: Mapping[str, Any]) -> Answer:
    """Triton's client, Open Inference Protocol v2 over gRPC."""
    return _by_triton(tritonclient.grpc, address, contract, task, given)


def _by_triton(module: Any, address: str, contract: Contract, task: str, given: Mapping[str, Any]) -> Answer:
    inputs = []
    for name, value in given.items():
        field = contract.task(task).inputs[name]
        array = np.asarray(value if isinstance(value, list) else [value])
        array = array.astype(object) if field.datatype == "BYTES" else array.astype(tensors.DTYPES[field.datatype])
        one = module.InferInput(name, list(array.shape), field.datatype)
        if module is tritonclient.http:
            one.set_data_from_numpy(array, binary_data=False)
        else:
            one.set_data_from_numpy(array)
        inputs.append(one)
    with module.InferenceServerClient(address) as client:
        if module is tritonclient.http:
            names = [*contract.task(task).outputs, "prediction_id"]
            wanted = [module.InferRequestedOutput(name, binary_data=False) for name in names]
            answer = client.infer(f"{contract.name}-{task}", inputs, outputs=wanted)
        else:
            answer = client.infer(f"{contract.name}-{task}", inputs)
    stacked = {name: answer.as_numpy(name).tolist() for name in contract.task(task).outputs}
    ids = [text.decode() if isinstance(text, bytes) else text for text in answer.as_numpy("prediction_id").tolist()]
    return Answer(ids, _items(stacked, contract, task))
