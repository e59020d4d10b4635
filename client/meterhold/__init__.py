"""The client of Meterhold, a metering service with reservations.

`Client` and `AsyncClient` have one method per call, with plain Python in and out. The generated
messages and stubs stay reachable as `meterhold.v1`.
"""

from __future__ import annotations

from meterhold._async_client import AsyncClient
from meterhold._async_hold import AsyncHold
from meterhold._client import Client
from meterhold._delivery import Delivery
from meterhold._enums import (
    DebitStatus,
    EntryKind,
    LotCategory,
    OnExpiry,
    Overage,
    ReservationState,
)
from meterhold._errors import (
    AccountFrozen,
    BalanceOutOfRange,
    EntryNotFound,
    IdempotencyMismatch,
    InsufficientCredits,
    InvalidRequest,
    MeterholdError,
    NotFound,
    OutcomeUnknown,
    RefundExceedsCharge,
    Rejected,
    ReservationExpired,
    ReservationNotFound,
    ReservationReleased,
    ReservationSettled,
    ServerError,
    Unavailable,
)
from meterhold._hold import Hold
from meterhold._results import (
    Account,
    Balance,
    DebitResult,
    Entry,
    ExtendResult,
    GrantResult,
    Lot,
    RefundResult,
    ReleaseResult,
    Reservation,
    ReserveResult,
    SettleResult,
)
from meterhold._tab import HoldOptions
from meterhold._values import Cash, Source, Tls, Usage

__all__ = [
    "Account",
    "AccountFrozen",
    "AsyncClient",
    "AsyncHold",
    "Balance",
    "BalanceOutOfRange",
    "Cash",
    "Client",
    "DebitResult",
    "DebitStatus",
    "Delivery",
    "Entry",
    "EntryKind",
    "EntryNotFound",
    "ExtendResult",
    "GrantResult",
    "Hold",
    "HoldOptions",
    "IdempotencyMismatch",
    "InsufficientCredits",
    "InvalidRequest",
    "Lot",
    "LotCategory",
    "MeterholdError",
    "NotFound",
    "OnExpiry",
    "OutcomeUnknown",
    "Overage",
    "RefundExceedsCharge",
    "RefundResult",
    "Rejected",
    "ReleaseResult",
    "Reservation",
    "ReservationExpired",
    "ReservationNotFound",
    "ReservationReleased",
    "ReservationSettled",
    "ReservationState",
    "ReserveResult",
    "ServerError",
    "SettleResult",
    "Source",
    "Tls",
    "Unavailable",
    "Usage",
]
