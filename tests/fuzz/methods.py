"""Every method that a server has, as it tells itself: none is listed by hand."""

from __future__ import annotations

import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


async def served(channel: grpc.aio.Channel) -> list[MethodDescriptor]:
    """The methods of all services that reflection lists, itself included."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([request]))
    answer = await call.read()
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(each.name) for each in answer.list_services_response.service]
    return [method for service in services for method in service.methods]


def path(method: MethodDescriptor) -> str:
    """As a caller names a method."""
    return f"/{method.containing_service.full_name}/{method.name}"
