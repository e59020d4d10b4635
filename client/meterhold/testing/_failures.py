"""Errors as the server sends them, for `Stub.fails`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from meterhold import _errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

    from meterhold._errors import Applied, MeterholdError

CODES = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "AMOUNT_OUT_OF_RANGE": grpc.StatusCode.OUT_OF_RANGE,
    "BALANCE_OUT_OF_RANGE": grpc.StatusCode.OUT_OF_RANGE,
    "INSUFFICIENT_CREDITS": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_FROZEN": grpc.StatusCode.FAILED_PRECONDITION,
    "REFUND_EXCEEDS_CHARGE": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_SETTLED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_RELEASED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ENTRY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "GRANT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "GRANT_REVOKED": grpc.StatusCode.FAILED_PRECONDITION,
    "SOURCE_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "CHAIN_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "IDEMPOTENCY_MISMATCH": grpc.StatusCode.ALREADY_EXISTS,
    "CREDENTIAL_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "SCOPE_MISSING": grpc.StatusCode.PERMISSION_DENIED,
    "RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OVERLOADED": grpc.StatusCode.UNAVAILABLE,
    "SHUTTING_DOWN": grpc.StatusCode.UNAVAILABLE,
    "DATABASE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "OUTCOME_UNKNOWN": grpc.StatusCode.UNAVAILABLE,
    "LEDGER_BEHIND": grpc.StatusCode.UNAVAILABLE,
    "DEADLINE_PASSED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
"""The code with which the server sends each reason."""


class Status(NamedTuple):
    """How the server ends a call that fails. `details` is a serialized google.rpc.Status."""

    code: grpc.StatusCode
    message: str
    details: bytes


def status(
    error: type[MeterholdError],
    *,
    reason: str,
    message: str,
    applied: Applied | None,
    retry_delay_seconds: float | None,
    field_violations: Iterable[tuple[str, str]],
    numbers: Mapping[str, Any],
) -> Status:
    """Build what makes the client raise `error`. Raises ValueError if nothing does."""
    reason = _reason(error, reason)
    if applied is None:
        applied = "UNKNOWN" if error is _errors.OutcomeUnknown else "NO"
    metadata = {"applied": applied, **_metadata(error, numbers)}
    info = error_details_pb2.ErrorInfo(reason=reason, domain=_errors.DOMAIN, metadata=metadata)
    details: list[Message] = [info]
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        for field, description in field_violations
    ]
    if violations:
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if retry_delay_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(retry_delay_seconds)))
    code = CODES[reason]
    message = message or f"{reason}, as scripted"
    full = status_pb2.Status(code=code.value[0], message=message, details=map(_packed, details))
    return Status(code, message, full.SerializeToString())


def _reason(error: type[MeterholdError], wanted: str) -> str:
    """The reason to send: the first of an exception's, unless another is wanted."""
    reasons = [reason for reason, known in _errors.BY_REASON.items() if known is error]
    if not reasons:
        known = sorted({known.__name__ for known in _errors.BY_REASON.values()})
        raise ValueError(f"no call raises {error.__name__} itself; choose of {', '.join(known)}")
    if wanted and wanted not in reasons:
        raise ValueError(f"{error.__name__} is raised for {', '.join(reasons)}, not for {wanted}")
    return wanted or reasons[0]


def _metadata(error: type[MeterholdError], numbers: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of an error, by the names of its properties, as the server spells them."""
    known = [name for name in dir(error) if isinstance(getattr(error, name), property)]
    for name in numbers:
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"{error.__name__} has no {name}; its numbers: {has}")
    return {_camel(name): _text(value) for name, value in numbers.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
