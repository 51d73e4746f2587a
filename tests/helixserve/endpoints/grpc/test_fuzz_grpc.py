"""Hostile gRPC: no INTERNAL, no UNKNOWN, no hang, no leak, whatever is sent.

Messages are made from the protocol's own descriptors, then damaged; frames of HTTP/2 go to the
socket as bytes. The same campaign, run against a server with a planted fault, fails.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from tritonclient.grpc import service_pb2 as pb  # ours would register the same names; test_generate compares them

from tests.campaign import LONG, Broken, Campaign
from tests.helixserve.support import Serving
from tests.helixserve.target import attacked

HONEST = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
SERVICE = "inference.GRPCInferenceService"
SERVED = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
_ALL = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
METHODS = {f"/{SERVICE}/{name}": _ALL[name].input_type for name in SERVED}
STREAM = f"/{SERVICE}/ModelStreamInfer"
METHODS[STREAM] = _ALL["ModelStreamInfer"].input_type
METHODS["/grpc.health.v1.Health/Check"] = health_pb2.HealthCheckRequest.DESCRIPTOR
QUIET: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
WORDS = {
    "name": st.sampled_from(["values", "text", "words", "pairs", "seed", "repeats", "scale", "projected", "x" * 9000]),
    "model_name": st.sampled_from(["tiny-project", "tiny-project", "tiny-measure", "tiny-measure", "tiny", ""]),
    "model_version": st.sampled_from(["", "3", "4"]),
    "datatype": st.sampled_from(["FP32", "BYTES", "INT64", "UINT64", "FP64", "INT32", "FP16", "BOOL", "X", ""]),
    "shape": st.sampled_from([0, 1, 1, 2, 8, -1, 2**31, 2**62]),
}
SCALARS = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=12) | st.just(b"\x01\0\0\0x") | st.just(b"\xff\xff\xff\xff"),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}


def messages(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """Messages of a type: each field absent, or of its own strategy."""
    made = message_factory.GetMessageClass(descriptor)

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        message = made()
        for field in descriptor.fields:
            if field.containing_oneof is not None and draw(st.booleans()):
                continue
            count = draw(st.sampled_from([1, 1, 1, 0, 2])) if field.is_repeated else draw(st.sampled_from([1, 1, 0]))
            for _ in range(count):
                _add(draw, message, field)
        return message

    return build()


def _add(draw: st.DrawFn, message: Any, field: FieldDescriptor) -> None:
    target = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key = draw(st.sampled_from(["seed", "repeats", "scale", "delay", "x", ""]))
        target[key].CopyFrom(draw(messages(kind.fields_by_name["value"].message_type)))
    elif kind is not None:
        made = draw(messages(kind))
        if field.is_repeated:
            target.append(made)
        else:
            target.CopyFrom(made)
    else:
        value = draw(WORDS.get(field.name, SCALARS[field.type]))
        if field.is_repeated:
            target.append(value)
        else:
            setattr(message, field.name, value)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, bytes]:
    """A method and the bytes of its message: whole, damaged, or none."""
    infer = f"/{SERVICE}/ModelInfer"
    method = draw(st.sampled_from([infer] * 6 + [STREAM] * 2 + sorted(METHODS)))
    data = draw(messages(METHODS[method])).SerializeToString()
    damage = draw(st.sampled_from(["none"] * 4 + ["cut", "flip", "twice", "noise", "length"]))
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    if damage == "cut":
        data = data[:at]
    elif damage == "flip" and data:
        data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    elif damage == "twice":
        data += data
    elif damage == "noise":
        data = draw(st.binary(max_size=40))
    elif damage == "length":  # a field that claims two gigabytes
        data += b"\x2a\xff\xff\xff\xff\x07"
    return method, data


def ask(channel: grpc.Channel, method: str, data: bytes) -> str:
    """How it went: OK, or REFUSED by an answer of a stream. Raises RpcError, and Broken for a fault told there."""
    if method != STREAM:
        channel.unary_unary(method)(data, timeout=30)
        return "OK"
    said = ""
    for answer in channel.stream_stream(method)(iter([data]), timeout=30):
        said = said or pb.ModelStreamInferResponse.FromString(answer).error_message
    if said.startswith(("the model ", "the server ")):
        raise Broken(f"{said!r} for {method} {data!r}")
    return "REFUSED" if said else "OK"


def fuzz_messages(server: Serving, times: int = 1) -> tuple[Campaign, dict[str, int]]:
    """Messages through a stock channel; the campaign, and how often each status came."""
    campaign, statuses = Campaign.of("grpc messages", server.process.pid, times=times), dict[str, int]()
    with grpc.insecure_channel(server.grpc) as channel:

        @seed(1)
        @settings(max_examples=campaign.wanted, **QUIET)
        @given(call=calls())
        def one(call: tuple[str, bytes]) -> None:
            method, data = call
            code, said, name = grpc.StatusCode.OK, "", ""
            with campaign.case():
                try:
                    name = ask(channel, method, data)
                except grpc.RpcError as error:
                    code, said = error.code(), error.details()  # type: ignore[attr-defined]  # a call, which the stub hides
            name = name or code.name
            statuses[name] = statuses.get(name, 0) + 1
            if code not in HONEST:
                raise Broken(f"{code.name} {said!r} for {method} {data!r}")

        one()
    return campaign, statuses


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame of HTTP/2, its length a lie if given."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: str, *more: tuple[str, str]) -> bytes:
    """HPACK literals without an index."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(b"\0" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in fields)


@st.composite
def connections(draw: st.DrawFn) -> bytes:
    """What one client sends: HTTP/2 that is mostly right, and messages whose lengths lie."""
    infer = f"/{SERVICE}/ModelInfer"
    sent = draw(st.sampled_from([PREFACE] * 9 + [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]))
    sent += frame(4, 0, 0, b"")
    for stream in range(1, 2 * draw(st.integers(1, 4)), 2):
        encoding = draw(
            st.sampled_from([(), (("grpc-encoding", "gzip"),), (("grpc-encoding", "x"),), (("grpc-timeout", "1n"),)])
        )
        sent += frame(1, 4, stream, headers(draw(st.sampled_from([infer, infer, "/x", ""])), *encoding))
        data = draw(
            st.binary(max_size=30) | st.just(pb.ModelInferRequest(model_name="tiny-measure").SerializeToString())
        )
        claimed = draw(st.sampled_from([len(data)] * 4 + [0, len(data) + 1, 2**31, 2**32 - 1]))
        prefix = bytes([draw(st.sampled_from([0, 0, 0, 1, 2, 255]))]) + struct.pack(">I", claimed)
        sent += frame(
            0,
            draw(st.sampled_from([1, 1, 0, 8])),
            stream,
            prefix + data,
            draw(st.sampled_from([None] * 6 + [0, 2**24 - 1])),
        )
    for _ in range(draw(st.integers(0, 3))):
        kind, flags = draw(st.integers(0, 12)), draw(st.integers(0, 255))
        sent += frame(kind, flags, draw(st.sampled_from([0, 1, 3, 2**31 - 1])), draw(st.binary(max_size=20)))
    return sent[: draw(st.sampled_from([len(sent)] * 4 + [draw(st.integers(0, len(sent)))]))]


def fuzz_wire(server: Serving, times: int = 1) -> Campaign:
    """Bytes on the socket; after each, the server closes, and after all, it serves."""
    campaign = Campaign.of("grpc wire", server.process.pid, times=times)

    @seed(2)
    @settings(max_examples=campaign.wanted, **QUIET)
    @given(sent=connections())
    def one(sent: bytes) -> None:
        with campaign.case(), socket.create_connection(("127.0.0.1", server.grpc_port), timeout=30) as client:
            try:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
            except TimeoutError:
                raise Broken(f"the server keeps the connection of {sent!r}") from None
            except OSError:
                pass  # closed before all was read

    one()
    with grpc.insecure_channel(server.grpc) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    if check.status != health_pb2.HealthCheckResponse.SERVING:
        raise Broken("the server no longer serves")
    return campaign


TIMES = [1, pytest.param(LONG, marks=pytest.mark.long)]


@pytest.mark.parametrize("times", TIMES)
def test_messages_good_and_damaged_find_no_fault(
    server: Serving, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign, statuses = fuzz_messages(server, times)
    with capsys.disabled():
        print(campaign.finish(), dict(sorted(statuses.items())))
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "REFUSED"} <= set(statuses)


@pytest.mark.parametrize("times", TIMES)
def test_frames_that_lie_find_no_fault(server: Serving, times: int, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = fuzz_wire(server, times)
    with capsys.disabled():
        campaign.finish()


WEAKEN = """
from helixserve.endpoints.grpc import malformed as _malformed
from google.protobuf.message import DecodeError as _DecodeError
class _Nothing(Exception):
    pass
_malformed.DecodeError = _Nothing
"""
"""What cannot be parsed is nobody's fault again: gRPC says UNKNOWN."""


def test_a_endpoint_that_lets_an_exception_through_fails_the_same_campaign(tmp_path: Path) -> None:
    with attacked(tmp_path, weaken=WEAKEN) as server:
        with pytest.raises(BaseException) as caught:  # a group of several, or one
            fuzz_messages(server, LONG)  # as many as it takes
        assert caught.group_contains(Broken) if isinstance(caught.value, BaseExceptionGroup) else caught.type is Broken
