"""What the ledger is made of: accounts, lots, reservations, entries and claims.

Plain slotted classes that `decide` changes in place: a working copy of the rows of one batch.
Every amount is an int of micro-units; every time is an aware datetime in UTC.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from meterhold_server.core.summary import Summary

AMOUNT_MICROS_MAX: Final = 10**15
"""The most that one call may move."""

BALANCE_MICROS_MAX: Final = 9 * 10**18
"""The largest magnitude of a balance or a lifetime total; int64 ends at 9.22·10^18."""


class LotCategory(StrEnum):
    PROMOTIONAL = "PROMOTIONAL"
    PAID = "PAID"


class OnExpiry(StrEnum):
    RELEASE = "RELEASE"
    CHARGE = "CHARGE"


class Overage(StrEnum):
    CAP = "CAP"
    OVERDRAFT = "OVERDRAFT"
    REJECT = "REJECT"


class EntryKind(StrEnum):
    GRANT = "GRANT"
    DEBIT = "DEBIT"
    CAPTURE = "CAPTURE"
    EXPIRY = "EXPIRY"
    EXPIRY_CHARGE = "EXPIRY_CHARGE"
    REFUND = "REFUND"
    ALLOWANCE = "ALLOWANCE"
    REVOCATION = "REVOCATION"
    REINSTATEMENT = "REINSTATEMENT"
    CORRECTION = "CORRECTION"


CHARGES: Final = (EntryKind.DEBIT, EntryKind.CAPTURE, EntryKind.EXPIRY_CHARGE)
"""What reports sum up. A correction in the place of a charge is none."""

REFUNDABLE: Final = frozenset(CHARGES)
"""What RefundCharge gives back. A hold charged at its expiry may first be settled late."""


class AllowancePeriod(StrEnum):
    OFF = "OFF"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"


class PendingState(StrEnum):
    """Where a grant stands that was made before its effective time."""

    PENDING = "PENDING"
    LANDED = "LANDED"
    REVOKED = "REVOKED"


class ReservationState(StrEnum):
    ACTIVE = "ACTIVE"
    SETTLED = "SETTLED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


class ClaimKind(StrEnum):
    """What an idempotency key was used for.

    The keys of DEBIT_ONCE, GRANT_ONCE and REFUND_CHARGE are unique in the namespace, so that a
    retry misrouted to another account is a conflict and never a second charge; the others are
    unique in their account. A revocation that comes before its grant takes the key as GRANT_ONCE,
    so that the two cannot miss each other; the grant then takes it as GRANT_AFTER_TOMBSTONE.
    """

    DEBIT_ONCE = "DEBIT_ONCE"
    GRANT_ONCE = "GRANT_ONCE"
    DEBIT = "DEBIT"
    CAPTURE = "CAPTURE"
    EXTEND = "EXTEND"
    REFUND_CHARGE = "REFUND_CHARGE"
    GRANT_AFTER_TOMBSTONE = "GRANT_AFTER_TOMBSTONE"


NAMESPACE_CLAIM_KINDS: Final = frozenset(
    {
        ClaimKind.DEBIT_ONCE,
        ClaimKind.GRANT_ONCE,
        ClaimKind.REFUND_CHARGE,
        ClaimKind.GRANT_AFTER_TOMBSTONE,
    }
)


class AccountKey(NamedTuple):
    """Whose credits of which unit. The namespace is given by the server, never by a request."""

    namespace: str
    account: str
    unit: str


@lru_cache(maxsize=1 << 16)
def account_id_of(key: AccountKey) -> str:
    """The UUID of an account, as text: BLAKE2b-128 of its NUL-separated key.

    Needs no look-up and no sequence, and is the same on every database. No part of a key contains
    NUL, so that two keys never meet.
    """
    digest = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


class Rules(NamedTuple):
    """The rules that a server may set. All durations are positive."""

    ttl_default: timedelta = timedelta(minutes=15)
    ttl_max: timedelta = timedelta(days=7)
    settle_grace: timedelta = timedelta(hours=24)


class Balance(NamedTuple):
    """The numbers of an account at one ledger position, all but `seq` in micro-units."""

    seq: int
    granted_micros: int
    spent_micros: int
    expired_micros: int
    revoked_micros: int
    refunded_micros: int
    held_micros: int
    debt_micros: int
    credit_limit_micros: int
    pending_micros: int = 0

    @property
    def remaining_micros(self) -> int:
        return (
            self.granted_micros
            + self.refunded_micros
            - self.spent_micros
            - self.expired_micros
            - self.revoked_micros
        )

    @property
    def available_micros(self) -> int:
        return self.remaining_micros - self.held_micros


EMPTY_BALANCE: Final = Balance(0, 0, 0, 0, 0, 0, 0, 0, 0)


class Part(NamedTuple):
    """Some micros of one lot."""

    lot_seq: int
    micros: int


@dataclass(slots=True)
class Lot:
    """What one grant put in, and how much of it is left.

    `repaid_micros` returned to it and repaid debt. `revoked_here_micros` of the `revoked_micros`
    were taken from the lot itself, the rest where `funds.charge` found it. `revocations`, by their
    id: how much was ever revoked, and how much of it is taken and not reinstated.
    """

    account_id: str
    seq: int
    granted_micros: int
    available_micros: int
    held_micros: int
    priority: int
    category: LotCategory
    expire_time: datetime | None
    create_time: datetime
    idempotency_key: str = ""
    cash: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    expired_micros: int = 0
    repaid_micros: int = 0
    revoked_micros: int = 0
    revoked_here_micros: int = 0
    revocations: dict[str, list[int]] | None = None
    stored: bool = field(default=False, compare=False)

    @property
    def live(self) -> bool:
        return self.available_micros > 0 or self.held_micros > 0

    @property
    def has_history(self) -> bool:
        """Whether more has become of it than being held and spent."""
        other = self.expired_micros or self.repaid_micros
        return bool(other) or self.revocations is not None

    def expired(self, at: datetime) -> bool:
        return self.expire_time is not None and self.expire_time <= at


class Receipt(NamedTuple):
    """What was asked under a key and what was answered: the whole of a replay.

    `request` has the fields that are compared, `answer` what `outcomes` needs to say it again.
    """

    request: dict[str, Any]
    answer: dict[str, Any]


@dataclass(slots=True)
class Reservation:
    """A hold and its history.

    `open_micros` is the sum of `parts` and `on_credit_micros`. While ACTIVE it is what is held.
    Once EXPIRED it is what the expiry charged and no late settle has confirmed or given back yet.
    """

    account_id: str
    reservation_id: str
    state: ReservationState
    reserved_micros: int
    open_micros: int
    parts: list[Part]
    on_credit_micros: int
    on_expiry: OnExpiry
    ttl: timedelta
    expire_time: datetime
    create_time: datetime
    opening: Receipt
    closing: Receipt | None = None
    captured_micros: int = 0
    from_hold_micros: int = 0
    released_micros: int = 0
    expiry_charged_micros: int = 0
    expiry_charge_seq: int = 0
    late: bool = False
    end_time: datetime | None = None
    labels: dict[str, str] | None = None
    metadata: str | None = None
    stored: bool = field(default=False, compare=False)

    @property
    def active(self) -> bool:
        return self.state is ReservationState.ACTIVE

    @property
    def settle_seq(self) -> int | None:
        """The entry of the final settle, or of the expiry whose charge it confirmed, if any."""
        if self.closing is None:
            return None
        return self.closing.answer["entry_seq"] or self.expiry_charge_seq or None


class Entry(NamedTuple):
    """One row of the append-only ledger.

    `parts` says which lots it took from or gave to; what is missing from the amount is debt.
    """

    account_id: str
    seq: int
    kind: EntryKind
    amount_micros: int
    remaining_after_micros: int
    create_time: datetime
    reservation_id: str
    key: str
    related_seq: int
    parts: list[Part]
    labels: dict[str, str] | None
    usage: dict[str, Any] | None
    metadata: str | None
    reason: str


@dataclass(slots=True)
class ChargeRefund:
    """How much of one charge has been given back, by all its refunds together."""

    account_id: str
    charge_seq: int
    refunded_micros: int = 0
    stored: bool = field(default=False, compare=False)


class AllowanceTerms(NamedTuple):
    """What an account gets each period. None leaves what it has, or takes the default."""

    amount_micros: int
    period: AllowancePeriod
    anchor_time: datetime | None = None
    priority: int | None = None


@dataclass(slots=True)
class Allowance:
    """The allowance of an account.

    `until_time` is the end of the period of its newest lot, and `refill_time` when the next is due.
    """

    account_id: str
    amount_micros: int
    period: AllowancePeriod
    anchor_time: datetime
    priority: int
    until_time: datetime | None = None
    refill_time: datetime | None = None
    stored: bool = field(default=False, compare=False)


class GrantKey(NamedTuple):
    """The key of a GrantOnce in its namespace."""

    namespace: str
    key: str


class EarlyRevocation(NamedTuple):
    """The largest fraction and the largest amount that were revoked, and reinstated of them."""

    fraction_ppm: int = 0
    amount_micros: int = 0
    reinstated_fraction_ppm: int = 0
    reinstated_amount_micros: int = 0


EarlyRevocations = dict[str, EarlyRevocation]
"""By `revocation_id`."""


@dataclass(slots=True)
class Tombstone:
    """What revocations said of a grant before it came, by their id, and of its source."""

    grant_key: GrantKey
    create_time: datetime
    source: dict[str, Any] | None = None
    revocations: EarlyRevocations = field(default_factory=dict)
    stored: bool = field(default=False, compare=False)


@dataclass(slots=True)
class PendingGrant:
    """A grant whose `effective_time` lay in the future when it was made, and the lot it opens then.

    `entry_seq` is 0 until it has landed.
    """

    account_id: str
    idempotency_key: str
    amount_micros: int
    effective_time: datetime
    state: PendingState
    entry_seq: int
    priority: int
    category: LotCategory
    expire_time: datetime | None
    create_time: datetime
    reason: str = ""
    cash: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    metadata: str | None = None
    revocations: EarlyRevocations = field(default_factory=dict)
    stored: bool = field(default=False, compare=False)


class ClaimKey(NamedTuple):
    """An idempotency key in its scope: the namespace, or the account_id, by the kind."""

    kind: ClaimKind
    scope: str
    key: str


@dataclass(slots=True)
class Claim:
    """An idempotency key that was used, and what came of it."""

    claim_key: ClaimKey
    account_id: str
    receipt: Receipt
    entry: Entry | None
    create_time: datetime


@dataclass(slots=True)
class Account:
    """An account with those of its lots and reservations that a batch may touch.

    `lots` has at least the lots with something left, in spend order; `reservations` at least those
    that the operations name and, when the account is due, all due ones and the next after them;
    `charges` and `charge_refunds` at least what refunds name.
    `allowance` is there when the account is due or to be configured; `pending` has at least the
    grants that operations name and, when the account is due, all that are open.
    `next_expire_time` is never later than the first expiry of an active hold or an available lot,
    the next refill of the allowance, and the first effective time of a pending grant.
    """

    key: AccountKey
    account_id: str
    seq: int = 0
    granted_micros: int = 0
    spent_micros: int = 0
    expired_micros: int = 0
    revoked_micros: int = 0
    refunded_micros: int = 0
    held_micros: int = 0
    held_on_credit_micros: int = 0
    lots_available_micros: int = 0
    debt_micros: int = 0
    credit_limit_micros: int = 0
    holds_use_credit: bool = False
    next_expire_time: datetime | None = None
    create_time: datetime | None = None
    frozen: bool = False
    pending_micros: int = 0
    allowance: Allowance | None = None
    pending: dict[str, PendingGrant] = field(default_factory=dict)
    lots: list[Lot] = field(default_factory=list)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    charges: dict[int, Entry] = field(default_factory=dict)
    charge_refunds: dict[int, ChargeRefund] = field(default_factory=dict)
    stored: bool = field(default=False, compare=False)

    @property
    def remaining_micros(self) -> int:
        return (
            self.granted_micros
            + self.refunded_micros
            - self.spent_micros
            - self.expired_micros
            - self.revoked_micros
        )

    @property
    def available_micros(self) -> int:
        return self.lots_available_micros - self.debt_micros - self.held_on_credit_micros

    @property
    def spendable_micros(self) -> int:
        """What a charge that may not go into debt can take: 0 or more."""
        return max(0, self.available_micros + self.credit_limit_micros)

    @property
    def reservable_micros(self) -> int:
        """What a hold can take: 0 or more."""
        credit_micros = self.credit_limit_micros if self.holds_use_credit else 0
        return max(0, self.available_micros + credit_micros)

    def balance(self) -> Balance:
        return Balance(
            self.seq,
            self.granted_micros,
            self.spent_micros,
            self.expired_micros,
            self.revoked_micros,
            self.refunded_micros,
            self.held_micros,
            self.debt_micros,
            self.credit_limit_micros,
            self.pending_micros,
        )


class DefaultsKey(NamedTuple):
    """Which accounts: those of a unit of a namespace."""

    namespace: str
    unit: str


@dataclass(slots=True)
class Defaults:
    """What accounts get when they are created. A signup amount of 0 is none."""

    key: DefaultsKey
    signup_micros: int = 0
    signup_lifetime: timedelta | None = None
    allowance: AllowanceTerms | None = None
    stored: bool = field(default=False, compare=False)


@dataclass(slots=True)
class State:
    """What a batch may touch. An account that is not here does not exist."""

    accounts: dict[str, Account] = field(default_factory=dict)
    claims: dict[ClaimKey, Claim] = field(default_factory=dict)
    tombstones: dict[GrantKey, Tombstone] = field(default_factory=dict)
    defaults: dict[DefaultsKey, Defaults] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
