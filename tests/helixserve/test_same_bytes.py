"""The promise of the doors: for one input and seed, all give the same typed bytes, and those are the log's.

Each wire answer is decoded with a stock client, encoded again with `helix_lineage.typed`, and
compared with the output commitment of the entry that its prediction id names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from helix_lineage.shard.entries import commitment
from helix_lineage.shard.reader import Log
from helix_lineage.typed import Tensor, decode, encode
from helixserve import tensors
from helixserve.contract import Contract, Task
from tests.helixserve.support import Serving

Items = list[tuple[str, bytes]]
"""Prediction id and typed bytes of each item."""


def typed(task: Task, values: dict[str, Any]) -> bytes:
    """The typed bytes of one item, from what a client decoded."""
    made = []
    for name, field in task.outputs.items():
        value = values[name]
        if isinstance(value, np.ndarray) and field.datatype != "BYTES":
            made.append(tensors.from_array(name, value))
        elif isinstance(value, np.ndarray):
            data = tuple(item if isinstance(item, bytes) else item.encode() for item in value.reshape(-1).tolist())
            made.append(Tensor(name, "BYTES", value.shape, data))
        else:
            made.append(tensors.from_value(name, field.datatype, value, rank=len(field.shape)))
    return encode(made)


def by_bentoml(server: Serving, task: Task, request: dict[str, Any]) -> Items:
    with bentoml.SyncHTTPClient(server.url) as client:
        answer = getattr(client, task.name)(**request)
    return [(item["prediction_id"], typed(task, item)) for item in answer["predictions"]]


def by_json(server: Serving, task: Task, request: dict[str, Any]) -> Items:
    answer = httpx.post(f"{server.url}/{task.name}", json=request).json()
    return [(item["prediction_id"], typed(task, item)) for item in answer["predictions"]]


def by_triton(server: Serving, task: Task, request: dict[str, Any], *, wire: str) -> Items:
    module: Any = tritonclient.grpc if wire == "grpc" else tritonclient.http
    inputs = []
    for name, value in request.items():
        field = task.inputs[name]
        tensor = tensors.from_value(name, field.datatype, value, rank=len(field.shape))
        made = module.InferInput(name, list(tensor.shape), field.datatype)
        array = (
            np.array(tensor.data, dtype=np.object_).reshape(tensor.shape)
            if field.datatype == "BYTES"
            else tensors.to_array(tensor)
        )
        made.set_data_from_numpy(array, **({} if wire == "grpc" else {"binary_data": wire == "binary"}))
        inputs.append(made)
    names = [*task.outputs, "prediction_id"]
    more = {} if wire == "grpc" else {"binary_data": wire == "binary"}
    outputs = [module.InferRequestedOutput(name, **more) for name in names]
    with module.InferenceServerClient(server.grpc if wire == "grpc" else server.url.removeprefix("http://")) as client:
        answer = client.infer(f"tiny-{task.name}", inputs, outputs=outputs)
    stacked = {name: answer.as_numpy(name) for name in names}
    ids = [item if isinstance(item, str) else item.decode() for item in stacked.pop("prediction_id").tolist()]
    return [(ids[i], typed(task, {name: array[i] for name, array in stacked.items()})) for i in range(len(ids))]


DOORS: dict[str, Callable[[Serving, Task, dict[str, Any]], Items]] = {
    "bentoml client": by_bentoml,
    "plain json": by_json,
    "oip http json": lambda server, task, request: by_triton(server, task, request, wire="json"),
    "oip http binary": lambda server, task, request: by_triton(server, task, request, wire="binary"),
    "oip grpc": lambda server, task, request: by_triton(server, task, request, wire="grpc"),
}

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("project", {"values": [1.5, -2, 0.1], "seed": 7, "repeats": 3}),
    ("project", {"values": [], "seed": 0, "scale": 0.3}),
    ("project", {"values": [1e-45, -0.0], "seed": 2**64 - 1, "words": ["å", "", "🧬"], "pairs": [[1, -2], [3, 4]]}),
    ("measure", {"text": "grüße 🧬\n\x00"}),
]


@pytest.mark.parametrize(("task_name", "request_values"), REQUESTS, ids=lambda value: str(value)[:40])
def test_all_doors_give_the_bytes_that_the_log_commits_to(
    tiny: Serving, log: Log, contract: Contract, task_name: str, request_values: dict[str, Any]
) -> None:
    task = contract.task(task_name)
    outputs, inputs = set(), set()
    for name, ask in DOORS.items():
        items = ask(tiny, task, request_values)
        assert len(items) == request_values.get("repeats", 1)
        for index, (prediction, again) in enumerate(items):
            shard, sequence = log.find(prediction)
            entry, kept = shard.prediction(sequence), shard.payload(sequence)
            assert kept.output_salt is not None
            assert kept.input is not None
            assert commitment(kept.output_salt, again) == entry.output_commitment, name
            assert kept.output == again
            assert (entry.index, entry.count, entry.seed) == (index, len(items), request_values.get("seed"))
            assert shard.inclusion(sequence).holds
            inputs.add(kept.input)
        outputs.add(tuple(again for _, again in items))
    assert len(outputs) == 1
    assert len(inputs) == 1, "the recorded input must not depend on the door"


def test_one_bit_less_does_not_meet_the_commitment(tiny: Serving, log: Log, contract: Contract) -> None:
    ((prediction, again),) = by_json(tiny, contract.task("project"), {"values": [1], "seed": 1})
    shard, sequence = log.find(prediction)
    salt = shard.payload(sequence).output_salt or b""
    total = tensors.find(decode(again), "total")
    assert total is not None
    assert isinstance(total.data, bytes)
    wrong = again.replace(total.data, bytes([total.data[0] ^ 1]) + total.data[1:])
    assert commitment(salt, wrong) != shard.prediction(sequence).output_commitment
