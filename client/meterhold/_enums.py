"""The enums of the public API, and the tables that tie them to the wire's numbers.

A newer server may answer a number this version has no name for; it becomes UNKNOWN and never an
error. UNKNOWN cannot be sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from meterhold.v1 import metering_service_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping


class OnExpiry(StrEnum):
    """What becomes of a hold whose time passes before it is settled or released."""

    RELEASE = "RELEASE"
    """The hold is freed and nothing is charged."""
    CHARGE = "CHARGE"
    """What is still held is charged: the work has started and must not be free."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for. Cannot be sent."""


class Overage(StrEnum):
    """What to do with the part of a charge that the account cannot cover."""

    CAP = "CAP"
    """Charge what there is and report the rest as a shortfall. `settle` only."""
    OVERDRAFT = "OVERDRAFT"
    """Charge all of it and go into debt. Never refused for lack of credits."""
    REJECT = "REJECT"
    """Raise `InsufficientCredits` and change nothing; a hold is kept."""


class LotCategory(StrEnum):
    """Where the credits of a lot come from. Otherwise equal, promotional ones are spent first."""

    PROMOTIONAL = "PROMOTIONAL"
    """Given away."""
    PAID = "PAID"
    """Bought."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for. Cannot be sent."""


class EntryKind(StrEnum):
    """What a ledger entry records."""

    GRANT = "GRANT"
    """Credits granted. Positive."""
    DEBIT = "DEBIT"
    """A `debit` or `debit_once`. Negative."""
    CAPTURE = "CAPTURE"
    """A charge of a `settle`, final or with `keep_open`. Negative."""
    EXPIRY = "EXPIRY"
    """What was left in a lot when it expired, or came back to it later. Negative."""
    EXPIRY_CHARGE = "EXPIRY_CHARGE"
    """What was still held when a reservation with `OnExpiry.CHARGE` expired. Negative."""
    REFUND = "REFUND"
    """Part of a charge given back. Positive."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for. Cannot be sent."""


class ReservationState(StrEnum):
    """Where a reservation stands. ACTIVE is the only state that holds credits."""

    ACTIVE = "ACTIVE"
    """Holds credits."""
    SETTLED = "SETTLED"
    """Closed by a `settle`, in time or late."""
    RELEASED = "RELEASED"
    """Closed by a `release`."""
    EXPIRED = "EXPIRED"
    """Its time passed."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for. Cannot be sent."""


class DebitStatus(StrEnum):
    """Whether a debit was made now or before."""

    DEBITED = "DEBITED"
    """Charged by this call."""
    REPLAYED = "REPLAYED"
    """Charged by an earlier equal request; the entry and the balance are that one's."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for."""


ON_EXPIRY_NUMBERS = {
    OnExpiry.RELEASE: types_pb2.ON_EXPIRY_RELEASE,
    OnExpiry.CHARGE: types_pb2.ON_EXPIRY_CHARGE,
}
OVERAGE_NUMBERS = {
    Overage.CAP: types_pb2.OVERAGE_CAP,
    Overage.OVERDRAFT: types_pb2.OVERAGE_OVERDRAFT,
    Overage.REJECT: types_pb2.OVERAGE_REJECT,
}
LOT_CATEGORY_NUMBERS = {
    LotCategory.PROMOTIONAL: types_pb2.LOT_CATEGORY_PROMOTIONAL,
    LotCategory.PAID: types_pb2.LOT_CATEGORY_PAID,
}
ENTRY_KIND_NUMBERS = {
    EntryKind.GRANT: types_pb2.ENTRY_KIND_GRANT,
    EntryKind.DEBIT: types_pb2.ENTRY_KIND_DEBIT,
    EntryKind.CAPTURE: types_pb2.ENTRY_KIND_CAPTURE,
    EntryKind.EXPIRY: types_pb2.ENTRY_KIND_EXPIRY,
    EntryKind.EXPIRY_CHARGE: types_pb2.ENTRY_KIND_EXPIRY_CHARGE,
    EntryKind.REFUND: types_pb2.ENTRY_KIND_REFUND,
}
RESERVATION_STATE_NUMBERS = {
    ReservationState.ACTIVE: types_pb2.RESERVATION_STATE_ACTIVE,
    ReservationState.SETTLED: types_pb2.RESERVATION_STATE_SETTLED,
    ReservationState.RELEASED: types_pb2.RESERVATION_STATE_RELEASED,
    ReservationState.EXPIRED: types_pb2.RESERVATION_STATE_EXPIRED,
}
DEBIT_STATUS_NUMBERS = {
    DebitStatus.DEBITED: metering_service_pb2.DEBIT_STATUS_DEBITED,
    DebitStatus.REPLAYED: metering_service_pb2.DEBIT_STATUS_REPLAYED,
}

_Member = TypeVar("_Member", bound=StrEnum)
_Number = TypeVar("_Number", bound=int)


def by_number(numbers: Mapping[_Member, _Number]) -> dict[int, _Member]:
    """Turn a table of wire numbers around, to read answers with."""
    return {number: member for member, number in numbers.items()}


def to_number(argument: str, value: _Member, numbers: Mapping[_Member, _Number]) -> _Number:
    """Answer the wire number of `value`; ValueError names the argument if it has none."""
    try:
        return numbers[value]
    except KeyError:
        allowed = ", ".join(numbers)
        raise ValueError(f"{argument} must be one of {allowed}, not {value!r}") from None
