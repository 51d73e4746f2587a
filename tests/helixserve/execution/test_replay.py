from __future__ import annotations

import subprocess
import sys

import cbor2
import pytest
from tiny_model.model import Tiny

from helix_lineage.formats.typed import Tensor, encode
from helixserve.errors import InvalidInputError
from helixserve.execution import replay
from helixserve.model import tensors
from helixserve.model.contract import Contract
from helixserve.runners.machine import machine_class
from tests.helixserve.support import Place, tiny_graph


@pytest.fixture
def model(contract: Contract) -> Tiny:
    return Tiny.load({"tiny.onnx": tiny_graph()}, contract)


def resolved(model: Tiny, repeats: int = 4) -> tuple[Tensor, ...]:
    given = [tensors.from_value("values", "FP32", [1, 2]), tensors.from_value("repeats", "INT64", repeats)]
    return model.resolve("project", given, lambda: 12)


def test_items_come_out_as_they_were_in_the_order_asked_for(model: Tiny) -> None:
    served = [encode(item) for item in model.predict(resolved(model), range(4))]
    assert replay.replay(model, encode(resolved(model)), [3, 0, 3]) == [served[3], served[0], served[3]]


def without(tensors_given: tuple[Tensor, ...], name: str) -> bytes:
    return encode(tensor for tensor in tensors_given if tensor.name != name)


def test_an_input_that_was_never_served_is_refused(model: Tiny) -> None:
    given = resolved(model)
    for typed in (
        without(given, "seed"),
        without(given, "task"),
        without(given, "scale"),
        without(given, "values"),
        b"\x80\x01",
    ):
        with pytest.raises(InvalidInputError):
            replay.replay(model, typed, [0])


@pytest.mark.parametrize("item", [-1, 4])
def test_an_item_outside_the_request_is_refused(model: Tiny, item: int) -> None:
    with pytest.raises(InvalidInputError, match="none of the 4"):
        replay.replay(model, encode(resolved(model)), [item])


@pytest.mark.parametrize(
    "request_value", [7, [2, b"", []], [1, "text", []], [1, b"", [True]], [1, b""], {"version": 1}]
)
def test_a_malformed_request_is_refused(request_value: object) -> None:
    with pytest.raises(InvalidInputError):
        replay.read_request(cbor2.dumps(request_value))
    with pytest.raises(InvalidInputError):
        replay.read_request(b"\xff")


def run(place: Place, request: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "helixserve", "replay"]
    return subprocess.run(command, input=request, env=place.environment(), capture_output=True, check=False)


def test_the_command_answers_in_a_fresh_process_without_release_trust_or_log(place: Place, model: Tiny) -> None:
    for mounted in (place.release, place.trust):
        mounted.unlink()
    answer = run(place, cbor2.dumps([1, encode(resolved(model)), [2, 1]]))
    assert answer.returncode == 0, answer.stderr
    served = [encode(item) for item in model.predict(resolved(model), range(4))]
    assert cbor2.loads(answer.stdout) == [1, machine_class(), [served[2], served[1]]]
    assert not place.log.exists()


def test_the_command_says_on_standard_error_what_is_wrong(place: Place) -> None:
    answer = run(place, cbor2.dumps([1, b"\x80", [0]]))
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert answer.stderr.decode().startswith("helixserve replay: the input names no task")
