"""The committed module is what our .proto generates, and our .proto says what the protocol says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2

from helixserve.endpoints.grpc.generate import PROTO, generate

SOURCE = Path(__file__).resolve().parents[4] / "platform" / "src"


def test_the_committed_module_is_what_the_proto_generates(tmp_path: Path) -> None:
    for fresh in generate(tmp_path):
        committed = SOURCE / fresh.relative_to(tmp_path)
        assert committed.read_text() == fresh.read_text(), "run: python -m helixserve.endpoints.grpc.generate"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    path = tmp_path_factory.mktemp("proto") / "set"
    assert protoc.main(["protoc", f"-I{SOURCE}", f"--descriptor_set_out={path}", PROTO]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file[0]


@pytest.fixture(scope="module")
def theirs() -> descriptor_pb2.FileDescriptorProto:
    found = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(found)
    # Triton keeps the configuration in a file of its own, in the same package.
    configuration = descriptor_pb2.FileDescriptorProto()
    model_config_pb2.DESCRIPTOR.CopyToProto(configuration)
    found.message_type.extend(configuration.message_type)
    found.enum_type.extend(configuration.enum_type)
    return found


def shape(message: Any) -> dict[str, Any]:
    """What goes over the wire: fields by name with number, type, label and oneof, and nested messages."""
    oneofs = [oneof.name for oneof in message.oneof_decl]
    return {
        "fields": {
            field.name: (
                field.number, field.type, field.type_name, field.label,
                oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
            )
            for field in message.field
        },
        "nested": {nested.name: shape(nested) for nested in message.nested_type},
        "map": message.options.map_entry,
    }  # fmt: skip


CONFIGURATION = ("ModelConfig", "ModelInput", "ModelOutput")


def part(fields: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: fields[name] for name in names}


def test_every_message_is_the_protocols(ours: Any, theirs: Any) -> None:
    assert ours.package == theirs.package
    known = {message.name: shape(message) for message in theirs.message_type}
    assert len(ours.message_type) == 22
    for message in ours.message_type:
        wanted = known[message.name]
        if message.name in CONFIGURATION:  # of dozens of fields those that mean something here
            wanted = wanted | {"nested": {}, "fields": part(wanted["fields"], [field.name for field in message.field])}
        assert shape(message) == wanted, message.name
    (enum,) = ours.enum_type
    assert [enum] == [known for known in theirs.enum_type if known.name == enum.name]


def signature(method: Any) -> tuple[Any, ...]:
    return method.input_type, method.output_type, method.client_streaming, method.server_streaming


def test_every_method_is_the_protocols(ours: Any, theirs: Any) -> None:
    (our_service,), (their_service,) = ours.service, theirs.service
    assert our_service.name == their_service.name
    known = {method.name: signature(method) for method in their_service.method}
    assert len(our_service.method) == 9
    for method in our_service.method:
        assert signature(method) == known[method.name]
    assert {method.name for method in our_service.method if method.server_streaming} == {"ModelStreamInfer"}


def test_another_field_number_would_be_noticed(ours: Any, theirs: Any) -> None:
    changed = descriptor_pb2.DescriptorProto()
    changed.CopyFrom(next(message for message in ours.message_type if message.name == "ModelInferRequest"))
    changed.field[0].number = 9
    method = descriptor_pb2.MethodDescriptorProto()
    method.CopyFrom(next(method for method in ours.service[0].method if method.name == "ModelStreamInfer"))
    method.client_streaming = False
    assert signature(method) not in [signature(known) for known in theirs.service[0].method]
    assert shape(changed) != {message.name: shape(message) for message in theirs.message_type}["ModelInferRequest"]


def test_importing_a_service_leaves_the_protocols_names_to_a_client() -> None:
    """One process can load our module or tritonclient's, so only a serving process loads ours."""
    program = "import tritonclient.grpc, helixserve.endpoints.http.bento"
    subprocess.run([sys.executable, "-c", program], check=True)
