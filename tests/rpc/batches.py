"""A Batch beneath the client library: what is put into it, and all that its errors say."""

from __future__ import annotations

from typing import Final, NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from meterhold.v1 import metering_service_pb2 as pb
from rpc.answers import Told

FIELDS: Final = {
    field.message_type.full_name: field.name
    for field in pb.BatchOperation.DESCRIPTOR.oneofs_by_name["operation"].fields
    if field.message_type is not None
}
"""The field of a BatchOperation for each request."""


def alone(request: Message) -> pb.BatchOperation:
    """An operation that is linked to no other."""
    operation = pb.BatchOperation()
    field: Message = getattr(operation, FIELDS[request.DESCRIPTOR.full_name])
    field.SetInParent()
    field.CopyFrom(request)
    return operation


class Refused(NamedTuple):
    """All that a BatchError says, or an error of a call but for the id of its request."""

    code: str
    message: str
    reason: str
    metadata: dict[str, str]
    violations: list[tuple[str, str]]
    retry_seconds: float | None


def refused(error: pb.BatchError) -> Refused:
    infos: list[error_details_pb2.ErrorInfo] = []
    violations: list[tuple[str, str]] = []
    retry_seconds = None
    for detail in error.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            infos.append(error_details_pb2.ErrorInfo.FromString(detail.value))
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [(each.field, each.description) for each in bad.field_violations]
        else:
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_seconds = delay.seconds + delay.nanos / 1e9
    (info,) = infos
    assert info.domain == "meterhold"
    code = next(code.name for code in grpc.StatusCode if code.value[0] == error.code)
    return Refused(code, error.message, info.reason, dict(info.metadata), violations, retry_seconds)


def of_call(told: Told) -> Refused:
    return Refused(
        told.code, told.message, told.reason, dict(told.info.metadata), told.violations,
        told.retry_seconds,
    )  # fmt: skip
