"""Health and reflection, which are not ours: what cannot be parsed is refused as elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from rpc.answers import told

SERVICES = (
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS = [method for service in SERVICES for method in service.methods]

BROKEN = {
    "wire_format": b"\xff",
    "not_utf_8": b"\x0a\x01\xff",
    "cut_short": b"\x0a\x05a",
    "too_large": b"x" * (64 * 1024 + 1),
}
CASES = [
    pytest.param(method, data, id=f"{method.full_name}-{what}")
    for method in METHODS
    for what, data in BROKEN.items()
    if what != "not_utf_8" or method.input_type.fields
]

SERVING = health_pb2.HealthCheckResponse.ServingStatus.Value("SERVING")


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


@pytest.mark.parametrize(("method", "data"), CASES)
async def test_what_cannot_be_parsed_is_refused(
    channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _ask(channel, method, data)
    answer = told(raised.value)
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert answer.applied == "NO"
    assert answer.fields == {"request"}


async def test_what_was_well_formed_before_is_answered(channel: grpc.aio.Channel) -> None:
    """A stream of reflection ends with the first message that is not."""
    open_: Any = channel.stream_stream(f"/{SERVICES[1].full_name}/ServerReflectionInfo")
    stream = open_()
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    await stream.write(listing.SerializeToString())
    first = reflection_pb2.ServerReflectionResponse.FromString(await stream.read())
    assert SERVICES[1].full_name in {each.name for each in first.list_services_response.service}
    await stream.write(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stream.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_of_all_services_is_listed(channel: grpc.aio.Channel) -> None:
    listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
    ours = ("MeteringService", "LedgerService", "AdminService")
    names = ("", *(f"meterhold.v1.{name}" for name in ours))
    assert {name: each.status for name, each in listed.statuses.items()} == dict.fromkeys(
        names, SERVING
    )


async def _ask(channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:
        both: Any = channel.stream_stream(path)
        stream = both()
        await stream.write(data)
        await stream.read()
    elif method.server_streaming:
        watching: Any = channel.unary_stream(path)
        await watching(data).read()
    else:
        unary: Any = channel.unary_unary(path)
        await unary(data)
