"""Errors to statuses: the one table from reason to gRPC code, and the details of each error.

Every error carries exactly one google.rpc.ErrorInfo; see meterhold/v1/error_reason.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    QuotaFailure,
    RequestInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status

from meterhold_server.batching.failures import Failure
from meterhold_server.core.outcomes import Rejected
from meterhold_server.rpc.validation import InvalidRequest, Violation

DOMAIN: Final = "meterhold"
DETAILS_KEY: Final = "grpc-status-details-bin"

CODES: Final = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "AMOUNT_OUT_OF_RANGE": grpc.StatusCode.OUT_OF_RANGE,
    "BALANCE_OUT_OF_RANGE": grpc.StatusCode.OUT_OF_RANGE,
    "INSUFFICIENT_CREDITS": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCOUNT_FROZEN": grpc.StatusCode.FAILED_PRECONDITION,
    "REFUND_EXCEEDS_CHARGE": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_SETTLED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_RELEASED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "GRANT_REVOKED": grpc.StatusCode.FAILED_PRECONDITION,
    "SOURCE_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "CHAIN_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "GRANT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ENTRY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
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

_MESSAGES: Final = {
    "INSUFFICIENT_CREDITS": "{available_micros} micros are available and {required_micros} are "
    "required; top up, or ask for at most {reservable_micros}",
    "ACCOUNT_FROZEN": "the account is frozen: it takes no new work and no credits",
    "REFUND_EXCEEDS_CHARGE": "{refundable_micros} micros are left of the charge to refund",
    "BALANCE_OUT_OF_RANGE": "{field} would pass {limit_micros} micros",
    "RESERVATION_NOT_FOUND": "the account has no reservation {reservation_id!r}",
    "RESERVATION_SETTLED": "reservation {reservation_id!r} was settled at {end_time}",
    "RESERVATION_RELEASED": "reservation {reservation_id!r} was released at {end_time}; "
    "charge the work with Debit",
    "RESERVATION_EXPIRED": "reservation {reservation_id!r} expired at {end_time}",
    "ENTRY_NOT_FOUND": "the account has no entry of that seq or key",
    "GRANT_NOT_FOUND": "no grant was made under the key {grant_key!r}; allow a tombstone to "
    "revoke it before it comes",
    "GRANT_REVOKED": "the grant {grant_key!r} was revoked before it came; reinstate it first",
    "SOURCE_MISMATCH": "another purchase is meant: {field} is {original!r}",
    "CHAIN_REFUSED": "operation {index} of the same chain was refused, so that none was done",
    "IDEMPOTENCY_MISMATCH": "this key was used for another request: {field} was {original!r}; "
    "send the original request, or a new key",
    "CREDENTIAL_INVALID": "{problem}",
    "SCOPE_MISSING": "the credential {credential_id} lacks the scope {scope!r}; use one "
    "that has it",
    "RATE_LIMITED": "the credential {credential_id} may do {operations_per_second_max} operations "
    "a second; retry after the delay",
    "LEDGER_BEHIND": "the ledger has reached seq {ledger_seq}, and {min_seq} was asked for",
}


_PASSING: Final = frozenset(
    {
        "ACCOUNT_FROZEN",
        "REFUND_EXCEEDS_CHARGE",
        "INSUFFICIENT_CREDITS",
        "BALANCE_OUT_OF_RANGE",
        "RESERVATION_NOT_FOUND",
        "GRANT_NOT_FOUND",
        "GRANT_REVOKED",
        "CHAIN_REFUSED",
        "CREDENTIAL_INVALID",
        "SCOPE_MISSING",
        "RATE_LIMITED",
    }
)
"""Refusals for what may change: another attempt of the same request might not meet them."""


class Refusal(Exception):
    """A definite answer other than a success: nothing happened, and nothing will."""

    def __init__(
        self, reason: str, details: Mapping[str, Any], retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(_MESSAGES[reason].format(**details))
        self.reason = reason
        self.details = details
        self.retry_after_seconds = retry_after_seconds


def refusal_of(rejected: Rejected) -> Refusal | InvalidRequest:
    """The error that a rejection by the core is told as."""
    if rejected.reason == "INVALID_FIELD":
        details = rejected.details
        return InvalidRequest([Violation(details["field"], details["description"])])
    return Refusal(rejected.reason, rejected.details)


class ErrorStatus(NamedTuple):
    """What the caller is sent: a code, a message, and details of google.rpc."""

    code: grpc.StatusCode
    message: str
    reason: str
    details: list[AnyMessage]

    def with_request_id(self, request_id: str) -> bytes:
        """The serialized google.rpc.Status of a call."""
        details = [*self.details, _packed(RequestInfo(request_id=request_id))]
        status = Status(code=self.code.value[0], message=self.message, details=details)
        return bytes(status.SerializeToString())


Error = InvalidRequest | Refusal | Failure


def status_of(error: Error, *, retried: bool = False) -> ErrorStatus:
    """The status of an error. `retried`: the transport has sent the request before.

    Then a failure of this attempt says nothing of those before it, and neither does `applied`; nor
    does a refusal that one of them, if it is still on its way, might not meet.
    """
    extra: list[Message] = []
    applied = "NO"
    if isinstance(error, InvalidRequest):
        too_large = all(violation.too_large for violation in error.violations)
        reason = "AMOUNT_OUT_OF_RANGE" if too_large else "INVALID_FIELD"
        metadata = {"fields": ",".join(violation.field for violation in error.violations)}
        extra.append(_bad_request(error.violations))
    elif isinstance(error, Refusal):
        reason = error.reason
        metadata = {_camel(name): _text(value) for name, value in error.details.items()}
        applied = "UNKNOWN" if retried and reason in _PASSING else "NO"
        if reason == "RATE_LIMITED":
            extra.append(_quota_failure(error))
    else:
        reason = error.reason.value
        metadata = {"errorId": error.error_id} if error.error_id else {}
        applied = "UNKNOWN" if error.applied is None or retried else "NO"
    retry_after = getattr(error, "retry_after_seconds", None)
    if retry_after is not None:
        extra.append(RetryInfo(retry_delay=_duration(retry_after)))
    info = ErrorInfo(reason=reason, domain=DOMAIN, metadata={"applied": applied, **metadata})
    return ErrorStatus(CODES[reason], str(error), reason, [_packed(one) for one in (info, *extra)])


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _bad_request(violations: list[Violation]) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=v.field, description=v.description) for v in violations
        ]
    )


def _quota_failure(limited: Refusal) -> QuotaFailure:
    subject = f"credential:{limited.details['credential_id']}"
    return QuotaFailure(
        violations=[QuotaFailure.Violation(subject=subject, description=str(limited))]
    )


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)
