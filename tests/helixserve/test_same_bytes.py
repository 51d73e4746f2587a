"""The promise of the endpoints: for one input and seed, all give the same typed bytes, and those are the log's.

Each wire answer is decoded with a stock client, encoded again with `helix_lineage.formats.typed`, and
compared with the output commitment of the entry that its prediction id names.
"""

from __future__ import annotations

from typing import Any

import pytest

from helix_lineage.formats.typed import decode
from helix_lineage.shard.entries import commitment
from helix_lineage.shard.reader import Log
from helixserve.model import tensors
from helixserve.model.contract import Contract
from tests.clients import ENDPOINTS, Address, by_json
from tests.helixserve.support import Serving


@pytest.fixture
def address(tiny: Serving, contract: Contract) -> Address:
    return Address(tiny.url, tiny.grpc, contract)


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("project", {"values": [1.5, -2, 0.1], "seed": 7, "repeats": 3}),
    ("project", {"values": [], "seed": 0, "scale": 0.3}),
    ("project", {"values": [1e-45, -0.0], "seed": 2**64 - 1, "words": ["å", "", "🧬"], "pairs": [[1, -2], [3, 4]]}),
    ("measure", {"text": "grüße 🧬\n\x00"}),
]


@pytest.mark.parametrize(("task_name", "request_values"), REQUESTS, ids=lambda value: str(value)[:40])
def test_all_endpoints_give_the_bytes_that_the_log_commits_to(
    address: Address, log: Log, task_name: str, request_values: dict[str, Any]
) -> None:
    outputs, inputs = set(), set()
    for name, ask in ENDPOINTS.items():
        items = ask(address, task_name, request_values)
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
    assert len(inputs) == 1, "the recorded input must not depend on the endpoint"


def test_one_bit_less_does_not_meet_the_commitment(address: Address, log: Log) -> None:
    ((prediction, again),) = by_json(address, "project", {"values": [1], "seed": 1})
    shard, sequence = log.find(prediction)
    salt = shard.payload(sequence).output_salt or b""
    total = tensors.find(decode(again), "total")
    assert total is not None
    assert isinstance(total.data, bytes)
    wrong = again.replace(total.data, bytes([total.data[0] ^ 1]) + total.data[1:])
    assert commitment(salt, wrong) != shard.prediction(sequence).output_commitment
