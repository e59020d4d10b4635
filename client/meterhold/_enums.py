"""The enums of the public API, and the tables that tie them to the wire's numbers.

A newer server may answer a number this version has no name for; it becomes UNKNOWN and never an
error. UNKNOWN cannot be sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from meterhold.v1 import admin_service_pb2, ledger_service_pb2, metering_service_pb2, types_pb2

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
    ALLOWANCE = "ALLOWANCE"
    """The credits of a new period of the account's allowance. Positive."""
    REVOCATION = "REVOCATION"
    """Credits taken back from a grant. Negative."""
    REINSTATEMENT = "REINSTATEMENT"
    """Revoked credits given back. Positive."""
    CORRECTION = "CORRECTION"
    """What `rebuild_balance` set right: positive as if granted, negative as if spent, or 0."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for. Cannot be sent."""


class AllowancePeriod(StrEnum):
    """How often an allowance is renewed."""

    OFF = "OFF"
    """Not at all."""
    DAILY = "DAILY"
    """Every 24 hours from the anchor."""
    WEEKLY = "WEEKLY"
    """Every 7 times 24 hours from the anchor."""
    MONTHLY = "MONTHLY"
    """Every calendar month (UTC), on the anchor's day or, if it has none, the month's last day."""
    UNKNOWN = "UNKNOWN"
    """Something this version of the client has no name for. Cannot be sent."""


class SpendDimension(StrEnum):
    """What charges can be summed by, besides their labels."""

    ACCOUNT = "ACCOUNT"
    """The account."""
    MODEL = "MODEL"
    """The model of the usage."""
    PROVIDER = "PROVIDER"
    """The provider of the usage."""
    DAY = "DAY"
    """The calendar day (UTC), as 2026-01-31."""
    WEEK = "WEEK"
    """The ISO week (UTC), named by its Monday, as 2026-01-26."""
    MONTH = "MONTH"
    """The calendar month (UTC), as 2026-01."""


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


class Scope(StrEnum):
    """What a credential may be used for. None includes another."""

    METER = "METER"
    """Reserve, settle, release, extend and debit."""
    GRANT = "GRANT"
    """Put credits in, give charges back, and undo grants."""
    READ = "READ"
    """Balances, entries, reports, accounts and verification."""
    ADMIN = "ADMIN"
    """Configure and rebuild accounts; make, list and revoke credentials."""
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
    EntryKind.ALLOWANCE: types_pb2.ENTRY_KIND_ALLOWANCE,
    EntryKind.REVOCATION: types_pb2.ENTRY_KIND_REVOCATION,
    EntryKind.REINSTATEMENT: types_pb2.ENTRY_KIND_REINSTATEMENT,
    EntryKind.CORRECTION: types_pb2.ENTRY_KIND_CORRECTION,
}
ALLOWANCE_PERIOD_NUMBERS = {
    AllowancePeriod.OFF: types_pb2.ALLOWANCE_PERIOD_OFF,
    AllowancePeriod.DAILY: types_pb2.ALLOWANCE_PERIOD_DAILY,
    AllowancePeriod.WEEKLY: types_pb2.ALLOWANCE_PERIOD_WEEKLY,
    AllowancePeriod.MONTHLY: types_pb2.ALLOWANCE_PERIOD_MONTHLY,
}
SPEND_DIMENSION_NUMBERS = {
    SpendDimension.ACCOUNT: ledger_service_pb2.SPEND_DIMENSION_ACCOUNT,
    SpendDimension.MODEL: ledger_service_pb2.SPEND_DIMENSION_MODEL,
    SpendDimension.PROVIDER: ledger_service_pb2.SPEND_DIMENSION_PROVIDER,
    SpendDimension.DAY: ledger_service_pb2.SPEND_DIMENSION_DAY,
    SpendDimension.WEEK: ledger_service_pb2.SPEND_DIMENSION_WEEK,
    SpendDimension.MONTH: ledger_service_pb2.SPEND_DIMENSION_MONTH,
}
RESERVATION_STATE_NUMBERS = {
    ReservationState.ACTIVE: types_pb2.RESERVATION_STATE_ACTIVE,
    ReservationState.SETTLED: types_pb2.RESERVATION_STATE_SETTLED,
    ReservationState.RELEASED: types_pb2.RESERVATION_STATE_RELEASED,
    ReservationState.EXPIRED: types_pb2.RESERVATION_STATE_EXPIRED,
}
SCOPE_NUMBERS = {
    Scope.METER: admin_service_pb2.SCOPE_METER,
    Scope.GRANT: admin_service_pb2.SCOPE_GRANT,
    Scope.READ: admin_service_pb2.SCOPE_READ,
    Scope.ADMIN: admin_service_pb2.SCOPE_ADMIN,
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
