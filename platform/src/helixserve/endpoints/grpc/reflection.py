"""gRPC reflection, v1 and v1alpha: what is served, described for clients that hold no .proto.

grpcio-reflection serves v1alpha only, and newer clients ask v1 first. Both have the same messages
under two package names, so one servicer answers at both, and v1 is described by the renamed file.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

OLD = "grpc.reflection.v1alpha"
NEW = "grpc.reflection.v1"
_FILE = "grpc/reflection/v1/reflection.proto"


def enable(server: grpc.aio.Server, *services: str) -> None:
    """Serve reflection of the services named, and of itself."""
    _describe()
    services = (*services, reflection.SERVICE_NAME, f"{NEW}.ServerReflection")
    servicer: Any = reflection.aio.ReflectionServicer(services)  # type: ignore[attr-defined]  # not in its stub
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(f"{version}.ServerReflection", {"ServerReflectionInfo": handler})
            for version in (OLD, NEW)
        )
    )


def _describe() -> None:
    """Put v1's description into the pool, unless a later grpcio-reflection has."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_FILE)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name, file.package = _FILE, NEW
        file.ClearField("options")
        fields = [field for message in file.message_type for field in message.field]
        for field in filter(lambda field: field.type_name, fields):
            field.type_name = field.type_name.replace(f".{OLD}.", f".{NEW}.")
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(f".{OLD}.", f".{NEW}.")
            method.output_type = method.output_type.replace(f".{OLD}.", f".{NEW}.")
        pool.Add(file)
