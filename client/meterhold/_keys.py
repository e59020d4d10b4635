"""What makes a call safe to repeat."""

from __future__ import annotations

from uuid import uuid4

from meterhold.v1 import admin_service_pb2, metering_service_pb2

# For each call that changes something: its key is the first of these fields that is set.
_KEY_FIELDS: dict[type, tuple[str, ...]] = {
    metering_service_pb2.ReserveRequest: ("reservation_id",),
    metering_service_pb2.SettleRequest: ("capture_id", "reservation_id"),
    metering_service_pb2.ReleaseRequest: ("reservation_id",),
    metering_service_pb2.ExtendRequest: ("extend_id", "reservation_id"),
    metering_service_pb2.DebitRequest: ("request_id",),
    metering_service_pb2.DebitOnceRequest: ("idempotency_key",),
    metering_service_pb2.GrantOnceRequest: ("idempotency_key",),
    metering_service_pb2.RefundChargeRequest: ("idempotency_key",),
    # They say how much is revoked all in all, so that the grant alone makes them safe to repeat.
    metering_service_pb2.RevokeGrantRequest: ("grant_key",),
    metering_service_pb2.ReinstateGrantRequest: ("grant_key",),
    # Sent again it would make another key.
    admin_service_pb2.CreateApiKeyRequest: (),
}


def key_of(request: object) -> str | None:
    """Answer the idempotency key of a request; None if it needs none, empty if it has none.

    Reading needs none, and neither does setting something to a value.
    """
    fields = _KEY_FIELDS.get(type(request))
    if fields is None:
        return None
    for field in fields:
        if key := getattr(request, field):
            return str(key)
    return ""


def call_of(request: object) -> str:
    """Answer the name of the call that takes the request, such as `Debit`."""
    return type(request).__name__.removesuffix("Request")


def fresh_key() -> str:
    """Make up a key that nobody else has."""
    return uuid4().hex
