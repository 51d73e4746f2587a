"""Messages that are no messages, at each kind of method and at each service of the port."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from helixserve.endpoints.grpc.malformed import details
from helixserve.errors import InvalidInputError
from tests.helixserve.support import Serving

NONE = b"\xff\xff\xff"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
GOOD = service_pb2.ModelInferRequest(model_name="tiny-measure", id="good", raw_input_contents=[b"\1\0\0\0a"])
GOOD.inputs.add(name="text", datatype="BYTES", shape=[1])


@pytest.fixture(scope="module")
def channel(tiny: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(tiny.grpc) as made:
        yield made


def streamed(channel: grpc.Channel, method: str, *sent: bytes) -> tuple[list[bytes], grpc.RpcError | None]:
    """What a stream answers, and how it ends."""
    got: list[bytes] = []
    try:
        got.extend(channel.stream_stream(method)(iter(sent), timeout=30))
    except grpc.RpcError as error:
        return got, error
    return got, None


def test_a_stream_of_good_messages_is_answered(channel: grpc.Channel) -> None:
    got, error = streamed(channel, STREAM, *[GOOD.SerializeToString()] * 2)
    assert error is None
    answers = [service_pb2.ModelStreamInferResponse.FromString(data) for data in got]
    assert [answer.infer_response.id for answer in answers] == ["good", "good"]
    ask = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    got, error = streamed(channel, REFLECT, ask, ask)
    assert error is None
    assert b"inference.GRPCInferenceService" in got[1]


@pytest.mark.parametrize("method", [STREAM, REFLECT])
def test_a_stream_that_ceases_to_be_messages_ends_with_a_sentence(channel: grpc.Channel, method: str) -> None:
    good = {STREAM: GOOD, REFLECT: reflection_pb2.ServerReflectionRequest(list_services="")}[method]
    got, error = streamed(channel, method, good.SerializeToString(), NONE)
    assert error is not None
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]  # a call, which the stub hides
    assert "cannot be parsed" in error.details()  # type: ignore[attr-defined]
    assert len(got) <= 1  # what was asked before may have been answered
    assert streamed(channel, method, good.SerializeToString())[1] is None


@pytest.mark.parametrize("name", ["Check", "Watch"])
def test_health_asked_with_noise_refuses(channel: grpc.Channel, name: str) -> None:
    method = f"/grpc.health.v1.Health/{name}"
    good = health_pb2.HealthCheckRequest().SerializeToString()
    if name == "Check":
        channel.unary_unary(method)(good, timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(NONE, timeout=30)
    else:
        watching = channel.unary_stream(method)(good, timeout=30)
        next(watching)
        watching.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            next(channel.unary_stream(method)(NONE, timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_a_refusal_on_a_stream_is_short(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="m" * 10_000)
    got, error = streamed(channel, STREAM, request.SerializeToString(), GOOD.SerializeToString())
    assert error is None
    first, second = (service_pb2.ModelStreamInferResponse.FromString(data) for data in got)
    assert 0 < len(first.error_message.encode()) <= 2000
    assert second.infer_response.id == "good"


def test_details_are_cut_between_letters() -> None:
    assert len(details(InvalidInputError("ø" * 400, where="ø" * 90, fix="ø" * 290)).encode()) <= 2000
