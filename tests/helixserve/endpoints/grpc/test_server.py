"""The gRPC endpoint, asked over the wire by stock clients."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from helix_lineage.shard.reader import Log
from tests.helixserve.support import Serving
from tests.waiting import LONGEST_S


@pytest.fixture(scope="module")
def client(tiny: Serving) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(tiny.grpc) as made:
        yield made


@pytest.fixture(scope="module")
def channel(tiny: Serving) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(tiny.grpc, options) as made:
        yield made


def call(channel: grpc.Channel, request: Any) -> Any:
    """ModelInfer with any message of the protocol."""
    method = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return method.with_call(request, timeout=60)


def tensor(name: str, array: Any, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def values(count: int = 2) -> triton.InferInput:
    return tensor("values", np.arange(count, dtype=np.float32), "FP32")


def test_the_stock_client_finds_server_and_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny-project", "3")
    assert client.get_server_metadata().name == "helix"
    metadata = client.get_model_metadata("tiny-project")
    assert {(m.name, m.datatype, tuple(m.shape)) for m in metadata.outputs} >= {("label", "BYTES", (-1, 1))}


def test_the_stock_client_reads_configurations_and_the_index(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("tiny-project", "3").config
    assert (config.name, config.max_batch_size, config.backend) == ("tiny-project", 0, "onnxruntime")
    inputs = {tensor.name: tensor for tensor in config.input}
    assert (inputs["values"].data_type, list(inputs["values"].dims)) == (model_config_pb2.TYPE_FP32, [-1])
    assert (inputs["values"].optional, inputs["words"].optional) == (False, True)
    assert {(t.name, t.data_type, tuple(t.dims)) for t in config.output} >= {
        ("label", model_config_pb2.TYPE_STRING, (-1, 1))
    }
    index = client.get_model_repository_index().models
    assert [(m.name, m.version, m.state) for m in index] == [
        ("tiny-project", "3", "READY"),
        ("tiny-measure", "3", "READY"),
    ]
    with pytest.raises(InferenceServerException, match="no model"):
        client.get_model_config("tiny")


def test_pings_do_not_end_a_long_call(tiny: Serving) -> None:
    """A ping a second, as gRPC's clients send them where a proxy drops silent connections."""
    pings = triton.KeepAliveOptions(
        keepalive_time_ms=1000, keepalive_permit_without_calls=True, http2_max_pings_without_data=0
    )
    with triton.InferenceServerClient(tiny.grpc, keepalive_options=pings) as client:
        # Eight pings at least: gRPC's own default ends the connection at the fourth.
        answer = client.infer("tiny-project", [values()], parameters={"delay": 9.0, "seed": 5})
        assert answer.as_numpy("projected").shape == (1, 8)


@pytest.mark.long
def test_pings_of_both_sides_do_not_end_a_longer_call(tiny: Serving) -> None:
    """Past the server's own pings, at 20 and 40 s. Triton's server by default takes one ping in five minutes."""
    pings = triton.KeepAliveOptions(
        keepalive_time_ms=1000, keepalive_permit_without_calls=True, http2_max_pings_without_data=0
    )
    with triton.InferenceServerClient(tiny.grpc, keepalive_options=pings) as client:
        answer = client.infer("tiny-project", [values()], parameters={"delay": 45.0, "seed": 5})
        assert answer.as_numpy("projected").shape == (1, 8)


def test_health_v1_says_serving(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING


def test_raw_tensors_get_raw_answers_by_item(client: triton.InferenceServerClient) -> None:
    words = np.array([b"a", "å".encode()], dtype=np.object_)
    options = {"repeats": 3, "seed": 5, "scale": 0.5}
    answer = client.infer(
        "tiny-project", [values(), tensor("words", words, "BYTES")], request_id="mine", parameters=options
    )
    assert answer.get_response().id == "mine"
    assert answer.get_response().parameters["seed"].uint64_param == 5
    assert answer.as_numpy("table").shape == (3, 4, 3)
    assert answer.as_numpy("label")[1, 0].decode() == "a/å/ø1"
    assert len(set(answer.as_numpy("prediction_id").tolist())) == 3


def contents_request(**more: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="tiny-project", **more)
    entry = request.inputs.add(name="values", datatype="FP32", shape=[2])
    entry.contents.fp32_contents.extend([1, 2])
    return request


def test_typed_contents_get_typed_contents_and_the_request_id_in_the_metadata(channel: grpc.Channel, log: Log) -> None:
    request = contents_request()
    request.parameters["seed"].uint64_param = 2**64 - 1
    response, made = call(channel, request)
    by_name = {output.name: output for output in response.outputs}
    assert list(by_name["largest"].contents.uint64_contents) == [2**64 - 1]
    assert list(by_name["even"].contents.bool_contents) == [True]
    assert not response.raw_output_contents
    shard, sequence = log.find(by_name["prediction_id"].contents.bytes_contents[0].decode())
    request_id = dict(made.initial_metadata())["x-request-id"]
    assert shard.prediction(sequence).request_id.hex() == request_id == response.id
    assert shard.prediction(sequence).seed == 2**64 - 1


def typed_into(request: Any, *values: bytes) -> None:
    """Raw contents instead of typed ones."""
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.extend(values)


def many_values(request: Any) -> None:
    request.inputs[0].shape[:] = [9]
    request.inputs[0].contents.fp32_contents.extend([0] * 7)


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no input": (lambda r: r.ClearField("inputs"), "INVALID_ARGUMENT"),
    "unknown model": (lambda r: setattr(r, "model_name", "unheard"), "NOT_FOUND"),
    "unknown version": (lambda r: setattr(r, "model_version", "1"), "NOT_FOUND"),
    "too few elements": (lambda r: r.inputs[0].shape.__setitem__(0, 3), "INVALID_ARGUMENT"),
    "negative extent": (lambda r: r.inputs[0].shape.__setitem__(0, -2), "INVALID_ARGUMENT"),
    "another field": (lambda r: r.inputs[0].contents.int64_contents.append(1), "INVALID_ARGUMENT"),
    "another type": (lambda r: setattr(r.inputs[0], "datatype", "FP64"), "INVALID_ARGUMENT"),
    "unknown type": (lambda r: setattr(r.inputs[0], "datatype", "FP128"), "INVALID_ARGUMENT"),
    "raw and typed": (lambda r: r.raw_input_contents.append(bytes(8)), "INVALID_ARGUMENT"),
    "raw of another count": (lambda r: typed_into(r, bytes(8), bytes(8)), "INVALID_ARGUMENT"),
    "raw too short": (lambda r: typed_into(r, bytes(7)), "INVALID_ARGUMENT"),
    "shared memory": (
        lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "r"),
        "INVALID_ARGUMENT",
    ),
    "another encoding": (
        lambda r: setattr(r.inputs[0].parameters["content_type"], "string_param", "base64"),
        "INVALID_ARGUMENT",
    ),
    "classes": (
        lambda r: setattr(r.outputs.add(name="label").parameters["classification"], "int64_param", 3),
        "INVALID_ARGUMENT",
    ),
    "unknown option": (lambda r: setattr(r.parameters["unheard"], "int64_param", 1), "INVALID_ARGUMENT"),
    "option out of range": (lambda r: setattr(r.parameters["repeats"], "int64_param", 51), "INVALID_ARGUMENT"),
    "unknown output": (lambda r: r.outputs.add(name="unheard"), "INVALID_ARGUMENT"),
    "too many values": (many_values, "INVALID_ARGUMENT"),
    "too large": (lambda r: setattr(r, "id", "x" * 30_000), "INVALID_ARGUMENT"),
    "a bug": (lambda r: setattr(r.parameters["fault"], "string_param", "raise"), "INTERNAL"),
}


@pytest.mark.parametrize("change", BAD)
def test_a_bad_request_gets_the_status_of_its_error_and_a_sentence(channel: grpc.Channel, change: str) -> None:
    request = contents_request()
    spoil, status = BAD[change]
    spoil(request)
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, request)
    assert caught.value.code().name == status
    assert len(caught.value.details()) > 20
    assert "secrets" not in caught.value.details()


def test_what_stock_clients_send_to_any_server_changes_nothing(
    client: triton.InferenceServerClient, channel: grpc.Channel
) -> None:
    options = {"seed": 5, "content_type": "np"}
    sequence = {"sequence_id": 9, "sequence_start": True, "sequence_end": True}
    answer = client.infer("tiny-project", [values()], parameters=options, priority=2, timeout=1_000_000, **sequence)
    plain = client.infer("tiny-project", [values()], parameters={"seed": 5})
    assert answer.as_numpy("projected").tobytes() == plain.as_numpy("projected").tobytes()
    request = contents_request()
    for name in ("headers", "binary_data_output"):
        request.parameters[name].string_param = "x"
    for parameters in (request.parameters, request.inputs[0].parameters):
        parameters["shared_memory_region"].SetInParent()  # holds nothing, as JSON's null
    assert call(channel, request)[0].outputs


def test_bytes_that_are_no_message_and_messages_far_beyond_the_limit_are_refused(channel: grpc.Channel) -> None:
    for body in (b"\xff\xff\xff", bytes(200_000)):
        with pytest.raises(grpc.RpcError):
            call(channel, body)
    assert call(channel, contents_request())[0].outputs


def test_the_stock_client_raises_what_the_server_says(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="at most 8"):
        client.infer("tiny-project", [values(9)])


def test_concurrent_clients_each_get_their_own_items(tiny: Serving, log: Log) -> None:
    def ask(seed: int) -> tuple[int, bytes, str]:
        with triton.InferenceServerClient(tiny.grpc) as client:
            answer = client.infer("tiny-project", [values()], parameters={"seed": seed})
            return seed, answer.as_numpy("projected").tobytes(), answer.as_numpy("prediction_id")[0].decode()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [*range(20), *range(20)]))
    assert len({prediction for _, _, prediction in answers}) == 40
    assert len({(seed, projected) for seed, projected, _ in answers}) == 20
    for seed, _, prediction in answers:
        shard, sequence = log.find(prediction)
        assert shard.prediction(sequence).seed == seed


class Stream:
    """Triton's client with one stream open."""

    def __init__(self, server: Serving) -> None:
        self.client = triton.InferenceServerClient(server.grpc)
        self._given: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self._given.put((result, error)))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream()
        self.client.close()

    def ask(self, name: str, count: int = 2, **more: Any) -> None:
        self.client.async_stream_infer("tiny-project", [values(count)], request_id=name, **more)

    def next(self) -> tuple[Any, Any]:
        return self._given.get(timeout=LONGEST_S)


def test_a_stream_answers_each_request_item_by_item_and_marks_the_last(tiny: Serving, log: Log) -> None:
    whole = {}
    with triton.InferenceServerClient(tiny.grpc) as client:
        for seed in (1, 2):
            answer = client.infer("tiny-project", [values()], parameters={"seed": seed, "repeats": 3})
            whole[str(seed)] = answer.as_numpy("projected")
    with Stream(tiny) as stream:
        for seed in (1, 2):
            options = {"seed": seed, "repeats": 3}
            stream.ask(str(seed), parameters=options, enable_empty_final_response=seed == 2)
        given = [stream.next() for _ in range(6)]
    assert [error for _, error in given] == [None] * 6
    for place, (result, _) in enumerate(given):
        response = result.get_response()
        request, index = "12"[place // 3], place % 3
        assert response.id == request
        assert response.parameters["triton_final_response"].bool_param == (index == 2)
        assert response.parameters["index"].uint64_param == index
        assert result.as_numpy("projected").tobytes() == whole[request][index].tobytes()
        (prediction,) = result.as_numpy("prediction_id").tolist()
        shard, sequence = log.find(prediction.decode())
        assert (shard.prediction(sequence).index, shard.prediction(sequence).count) == (index, 3)


def test_an_item_of_a_stream_comes_when_it_is_ready(tiny: Serving) -> None:
    with tiny.holding(after=1), Stream(tiny) as stream:
        stream.ask("slow", parameters={"repeats": 3})
        for index in range(3):
            result, error = stream.next()
            assert error is None
            assert result.get_response().parameters["index"].uint64_param == index
            tiny.let(1)  # the next one is not computed before: an item that was held back would never come


def test_an_error_is_a_response_and_the_stream_goes_on(tiny: Serving) -> None:
    with Stream(tiny) as stream:
        stream.ask("bad", count=9)
        stream.ask("breaks", parameters={"repeats": 3, "fault": "shape"})
        stream.ask("a bug", parameters={"fault": "raise"})
        stream.ask("good")
        result, error = stream.next()
        assert result is None
        assert "at most 8" in str(error)
        assert stream.next()[1] is None
        assert "shape" in str(stream.next()[1])
        assert "secrets" not in str(stream.next()[1])
        assert stream.next()[0].get_response().id == "good"


class NewReflection(ProtoReflectionDescriptorDatabase):
    """A client of reflection v1, whose messages are those of v1alpha; grpcurl is one."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self._stub.ServerReflectionInfo = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )


@pytest.mark.parametrize("version", [ProtoReflectionDescriptorDatabase, NewReflection])
def test_reflection_describes_what_is_served(channel: grpc.Channel, version: Any) -> None:
    database = version(channel)
    services = set(database.get_services())
    assert services == {
        "inference.GRPCInferenceService", "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection",
    }  # fmt: skip
    itself = DescriptorPool(database).FindServiceByName("grpc.reflection.v1.ServerReflection")
    asks = itself.methods_by_name["ServerReflectionInfo"].input_type
    assert asks.full_name == "grpc.reflection.v1.ServerReflectionRequest"
    assert asks.fields_by_name["file_containing_extension"].message_type.full_name == (
        "grpc.reflection.v1.ExtensionRequest"
    )
    described = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
    assert described.methods_by_name["ModelStreamInfer"].server_streaming
    fields = described.methods_by_name["ModelInfer"].input_type.fields_by_name
    assert fields["raw_input_contents"].number == 7
    # Each method that is described is there: an unknown one would be UNIMPLEMENTED.
    for name, method in described.methods_by_name.items():
        if not method.server_streaming:
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff\xff\xff")
            assert caught.value.code() is not grpc.StatusCode.UNIMPLEMENTED, name
