"""The exceptions of the client, and the one table from the server's reasons to them.

Each name says what to do: change something, wait, replay, or report.

    MeterholdError
    ├── Rejected                    nothing happened; the same request again will not help by itself
    │   ├── InvalidRequest          a field is malformed or an amount too large
    │   ├── BalanceOutOfRange       a balance or lifetime total would pass its limit
    │   ├── InsufficientCredits     the account does not have what the call needs
    │   ├── AccountFrozen           the account takes no new work and no credits
    │   ├── RefundExceedsCharge     more than is left of the charge
    │   ├── GrantRevoked            the grant was revoked before it came
    │   ├── SourceMismatch          the purchase is not the one that is meant
    │   ├── ChainRefused            another operation of the chain was refused
    │   ├── IdempotencyMismatch     the key was used before with another request
    │   ├── ReservationSettled      settled already
    │   ├── ReservationReleased     released already
    │   ├── ReservationExpired      expired, and the grace time for settling is over
    │   └── NotFound
    │       ├── ReservationNotFound
    │       ├── GrantNotFound
    │       └── EntryNotFound
    ├── AccessDenied                not done; the server does not let this caller do it
    │   ├── CredentialInvalid       no credential, or one that is malformed, unknown or revoked
    │   └── ScopeMissing            the credential may not be used for this call
    ├── Unavailable                 not done; try again after `retry_delay_seconds`
    │   └── RateLimited             the credential has done as many operations as it may for now
    ├── OutcomeUnknown              may have been done; send the same request with the same key
    └── ServerError                 a bug in the server; see `applied`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Applied = Literal["NO", "UNKNOWN"]

DOMAIN = "meterhold"
DETAILS_KEY = "grpc-status-details-bin"


class MeterholdError(Exception):
    """Any failed call.

    `reason` is the name of the server's `ErrorReason`, empty if the error did not come from
    Meterhold itself but from the transport or something in between. `code` is the name of the gRPC
    status code. `applied` is `NO` (nothing happened and nothing will) or `UNKNOWN` (it may have
    happened). `call` is the name of the call, such as `Debit`, and `key` the idempotency key it was
    sent with, also if the client made it up; empty if it needs none, as a read. `metadata` holds
    the numbers of the message as the server sent them, `field_violations` pairs of field and
    description, `retry_delay_seconds` how long the server asks to wait.
    """

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        code: str = "UNKNOWN",
        applied: Applied = "UNKNOWN",
        call: str = "",
        key: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[tuple[str, str]] = (),
        retry_delay_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.applied = applied
        self.call = call
        self.key = key
        self.metadata: dict[str, str] = dict(metadata or {})
        self.field_violations: list[tuple[str, str]] = list(field_violations)
        self.retry_delay_seconds = retry_delay_seconds

    def _micros(self, key: str) -> int:
        return int(self.metadata.get(key, "0"))


class Rejected(MeterholdError):
    """The server refused. Nothing happened, and the same request again will not help by itself."""


class InvalidRequest(Rejected):
    """Fields are malformed, or an amount is above 10^15 micros. See `field_violations`."""


class BalanceOutOfRange(Rejected):
    """The call would move a balance or a lifetime total past its limit."""

    @property
    def field(self) -> str:
        """Which number of the balance it is."""
        return self.metadata.get("field", "")

    @property
    def limit_micros(self) -> int:
        """How far it may go in either direction."""
        return self._micros("limitMicros")


class InsufficientCredits(Rejected):
    """The account does not have what the call needs. The same key may succeed after a top-up."""

    @property
    def available_micros(self) -> int:
        """What is available now, before any credit limit."""
        return self._micros("availableMicros")

    @property
    def required_micros(self) -> int:
        """What the call needs to be available."""
        return self._micros("requiredMicros")

    @property
    def reservable_micros(self) -> int:
        """What a `reserve` could hold now."""
        return self._micros("reservableMicros")


class AccountFrozen(Rejected):
    """The account is frozen: it takes no new work and no credits. What runs may be settled."""


class RefundExceedsCharge(Rejected):
    """A refund of more than is left of the charge."""

    @property
    def refundable_micros(self) -> int:
        """What is left of the charge."""
        return self._micros("refundableMicros")


class GrantRevoked(Rejected):
    """All of the grant was revoked before it came. `reinstate_grant` lets it in."""

    @property
    def grant_key(self) -> str:
        """The key under which the grant was revoked."""
        return self.metadata.get("grantKey", "")


class SourceMismatch(Rejected):
    """The purchase behind the grant is not the one that the caller means."""

    @property
    def field(self) -> str:
        """The first field that differs."""
        return self.metadata.get("field", "")

    @property
    def original(self) -> str:
        """The value that the purchase has."""
        return self.metadata.get("original", "")


class ChainRefused(Rejected):
    """An operation of a chain was refused, so that this one was not done either."""

    @property
    def index(self) -> int:
        """The place in the Batch, from 0, of the operation that was refused."""
        return int(self.metadata.get("index", "0"))


class IdempotencyMismatch(Rejected):
    """The key, or the reservation, capture or extend id, was used before with another request."""

    @property
    def field(self) -> str:
        """The first field that differs."""
        return self.metadata.get("field", "")

    @property
    def original(self) -> str:
        """The value that field had in the original request."""
        return self.metadata.get("original", "")


class _ReservationEnded(Rejected):
    @property
    def reservation_id(self) -> str:
        """The reservation."""
        return self.metadata.get("reservationId", "")

    @property
    def end_time(self) -> datetime | None:
        """When it ended, aware; None if the server did not say."""
        text = self.metadata.get("endTime")
        return datetime.fromisoformat(text) if text else None


class ReservationSettled(_ReservationEnded):
    """The reservation has been settled; it takes no further charge or extension."""


class ReservationReleased(_ReservationEnded):
    """The reservation has been released; charge the work with a debit instead."""


class ReservationExpired(_ReservationEnded):
    """The reservation has expired: too late to extend it, or even to settle it."""


class NotFound(Rejected):
    """The account has nothing of that name."""


class ReservationNotFound(NotFound):
    """The account has no reservation of that id."""

    @property
    def reservation_id(self) -> str:
        """The reservation asked for."""
        return self.metadata.get("reservationId", "")


class GrantNotFound(NotFound):
    """No grant of that key has been made, in this account if one was named."""

    @property
    def grant_key(self) -> str:
        """The key asked for."""
        return self.metadata.get("grantKey", "")


class EntryNotFound(NotFound):
    """The account has no ledger entry of that seq or key."""


class AccessDenied(MeterholdError):
    """The server does not let this caller do it, and nothing was done.

    It says nothing of the request: with the right credential the same one may succeed.
    """


class CredentialInvalid(AccessDenied):
    """No credential came with the call, or one that is malformed, unknown or revoked."""


class ScopeMissing(AccessDenied):
    """The credential may not be used for this call."""

    @property
    def scope(self) -> str:
        """What it lacks: `meter`, `grant`, `read` or `admin`."""
        return self.metadata.get("scope", "")


class Unavailable(MeterholdError):
    """The server could not take the call on, and nothing was done. Try again with the same key.

    Wait `retry_delay_seconds` first, if given.
    """


class RateLimited(Unavailable):
    """The credential has done as many operations as it may for now. Nothing was done."""

    @property
    def operations_per_second_max(self) -> int:
        """How many it may do in a second."""
        return int(self.metadata.get("operationsPerSecondMax", "0"))


class OutcomeUnknown(MeterholdError):
    """The call may or may not have been done; nobody could tell before `timeout_seconds` were over.

    Make the same call again with the same key (`reservation_id`, `capture_id`, `extend_id`,
    `request_id`, `idempotency_key` or `grant_key`; one that the client made up is in `key`): the
    answer is then the truth, and nothing is done twice. For a call that only reads it means just
    that no answer came.
    """


class ServerError(MeterholdError):
    """A bug in the server. `applied` says whether anything can have been written."""

    @property
    def error_id(self) -> str:
        """What to look for in the server's log, and to report."""
        return self.metadata.get("errorId", "")


BY_REASON: dict[str, type[MeterholdError]] = {
    "INVALID_FIELD": InvalidRequest,
    "AMOUNT_OUT_OF_RANGE": InvalidRequest,
    "BALANCE_OUT_OF_RANGE": BalanceOutOfRange,
    "INSUFFICIENT_CREDITS": InsufficientCredits,
    "ACCOUNT_FROZEN": AccountFrozen,
    "REFUND_EXCEEDS_CHARGE": RefundExceedsCharge,
    "RESERVATION_SETTLED": ReservationSettled,
    "RESERVATION_RELEASED": ReservationReleased,
    "RESERVATION_EXPIRED": ReservationExpired,
    "RESERVATION_NOT_FOUND": ReservationNotFound,
    "ENTRY_NOT_FOUND": EntryNotFound,
    "GRANT_NOT_FOUND": GrantNotFound,
    "GRANT_REVOKED": GrantRevoked,
    "SOURCE_MISMATCH": SourceMismatch,
    "CHAIN_REFUSED": ChainRefused,
    "IDEMPOTENCY_MISMATCH": IdempotencyMismatch,
    "CREDENTIAL_INVALID": CredentialInvalid,
    "SCOPE_MISSING": ScopeMissing,
    "RATE_LIMITED": RateLimited,
    "OVERLOADED": Unavailable,
    "SHUTTING_DOWN": Unavailable,
    "DATABASE_UNAVAILABLE": Unavailable,
    "OUTCOME_UNKNOWN": OutcomeUnknown,
    "LEDGER_BEHIND": Unavailable,
    "DEADLINE_PASSED": Unavailable,
    "INTERNAL": ServerError,
}

# For reasons of a newer server. RESOURCE_EXHAUSTED and the like are refusals once a reason says so.
_BY_CODE: dict[grpc.StatusCode, type[MeterholdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.INTERNAL: ServerError,
}

# Without a reason only these prove that the call was not carried out: gRPC libraries and proxies
# send them before they let a request through. Every other code may hide an answer that got lost,
# RESOURCE_EXHAUSTED (an answer too large to receive) and a failure to connect (after an attempt
# that did connect) included.
DEFINITE_CODES = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@dataclass(slots=True)
class _Details:
    """What the details of a status said; all empty if there were none that we can read."""

    info: error_details_pb2.ErrorInfo | None = None
    field_violations: list[tuple[str, str]] = field(default_factory=list)
    retry_delay_seconds: float | None = None


def from_rpc_error(error: grpc.RpcError, *, call: str = "", key: str = "") -> MeterholdError:
    """Turn what a stub raised, sync or aio, into the exception to raise instead."""
    code = error.code()
    try:
        details = _details(error)
    except DecodeError:
        details = _Details()
    error_class, applied = _class_and_applied(code, details.info)
    failure = error_class(
        error.details() or "",
        reason=details.info.reason if details.info else "",
        code=code.name,
        applied=applied,
        call=call,
        key=key,
        metadata=details.info.metadata if details.info else None,
        field_violations=details.field_violations,
        retry_delay_seconds=details.retry_delay_seconds,
    )
    failure.__cause__ = error
    return failure


def unreadable_answer(*, call: str, key: str) -> OutcomeUnknown:
    """Build the exception for an answer that came and could not be parsed."""
    return OutcomeUnknown("the answer could not be parsed", code="INTERNAL", call=call, key=key)


def client_closed(*, call: str, key: str) -> Unavailable:
    """Build the exception for a call that was not made, because its client is closed."""
    return Unavailable(
        "the client is closed; make a new one", code="CANCELLED", applied="NO", call=call, key=key
    )


def _class_and_applied(
    code: grpc.StatusCode, info: error_details_pb2.ErrorInfo | None
) -> tuple[type[MeterholdError], Applied]:
    if info is None:
        return (Rejected, "NO") if code in DEFINITE_CODES else (OutcomeUnknown, "UNKNOWN")
    error_class = BY_REASON.get(info.reason) or _BY_CODE.get(code, Rejected)
    if info.metadata.get("applied") == "NO" and error_class is not OutcomeUnknown:
        return error_class, "NO"
    # The other classes promise that nothing happened, so they must not be used here.
    return (ServerError if error_class is ServerError else OutcomeUnknown), "UNKNOWN"


def _details(error: grpc.RpcError) -> _Details:
    details = _Details()
    for detail in _status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            if info.domain == DOMAIN:
                details.info = info
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest.FromString(detail.value)
            details.field_violations = [
                (violation.field, violation.description)
                for violation in bad_request.field_violations
            ]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            details.retry_delay_seconds = delay.seconds + delay.nanos / 1e9
    return details


def _status(error: grpc.RpcError) -> status_pb2.Status:
    # Pairs, sync and aio alike, which the types of grpc do not say; None if nothing was received.
    metadata = cast("Iterable[tuple[str, bytes]] | None", error.trailing_metadata())
    for key, value in metadata or ():
        if key == DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()
