"""Calls beneath the client library, as bytes, and all that an error's status says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from meterhold.v1 import admin_service_pb2, ledger_service_pb2, metering_service_pb2

SERVICES = (
    metering_service_pb2.DESCRIPTOR.services_by_name["MeteringService"],
    ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)
METHODS = {method.name: method for service in SERVICES for method in service.methods}

Metadata = tuple[tuple[str, str], ...]


class Told(NamedTuple):
    """An error as the caller gets it. What is not there is empty, and a message has not two."""

    code: str
    message: str
    info: error_details_pb2.ErrorInfo
    violations: list[tuple[str, str]]
    retry_seconds: float | None
    request_id: str
    trailing: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.info.reason)

    @property
    def applied(self) -> str:
        return str(self.info.metadata["applied"])

    @property
    def fields(self) -> set[str]:
        return {field for field, _ in self.violations}


async def call(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    request: Message | bytes,
    metadata: Metadata = (),
    timeout: float = 20,  # noqa: ASYNC109 - gRPC's own
) -> bytes | Told:
    """Send a request as it is. Answers the response's bytes, or what the caller is told."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}"
    )
    try:
        return bytes(await send(data, metadata=metadata, timeout=timeout))
    except grpc.aio.AioRpcError as error:
        return told(error)


async def refusal(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    request: Message | bytes,
    metadata: Metadata = (),
) -> Told:
    answer = await call(channel, method, request, metadata)
    assert isinstance(answer, Told), f"{method.name} was accepted: {request!r}"
    return answer


def told(error: grpc.aio.AioRpcError) -> Told:
    trailing = dict(error.trailing_metadata() or ())
    data = trailing.pop("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(data if isinstance(data, bytes) else data.encode())
    if data:
        assert status.code == error.code().value[0]
        assert status.message == error.details()
    infos = list(_details(status, error_details_pb2.ErrorInfo))
    requests = list(_details(status, error_details_pb2.RequestInfo))
    retries = list(_details(status, error_details_pb2.RetryInfo))
    assert len(infos) <= 1
    return Told(
        error.code().name,
        error.details() or "",
        infos[0] if infos else error_details_pb2.ErrorInfo(),
        [
            (violation.field, violation.description)
            for bad in _details(status, error_details_pb2.BadRequest)
            for violation in bad.field_violations
        ],
        retries[0].retry_delay.seconds + retries[0].retry_delay.nanos / 1e9 if retries else None,
        requests[0].request_id if requests else "",
        trailing,
    )


def _details(status: status_pb2.Status, kind: type[Any]) -> Iterator[Any]:
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            yield kind.FromString(detail.value)
