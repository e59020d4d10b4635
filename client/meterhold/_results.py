"""What the calls answer: frozen values.

All amounts are int micro-units, 1 credit = 1 000 000 micros. All times are aware, in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from meterhold._enums import (
        DebitStatus,
        EntryKind,
        LotCategory,
        OnExpiry,
        ReservationState,
        Scope,
    )
    from meterhold._values import Allowance, Cash, SignupGrant, Source, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What one grant put in and how much of it is left.

    `seq` is that of the entry that opened the lot. `available_micros` can still be spent;
    `held_micros` is earmarked by active reservations and outlives the lot's expiry until they end.
    `expired_micros` was written off because the lot had expired, `revoked_micros` is revoked of the
    grant. Lots are spent by ascending `priority`, 0 to 1000. `expire_time` None = never. `cash` and
    `source` are None if the grant did not say.

    A grant that is pending is a lot with `seq` 0 that becomes effective at `effective_time`; None
    for all others.
    """

    seq: int
    granted_micros: int
    available_micros: int
    held_micros: int
    priority: int
    category: LotCategory
    expire_time: datetime | None
    create_time: datetime
    idempotency_key: str
    cash: Cash | None
    source: Source | None
    expired_micros: int = 0
    revoked_micros: int = 0
    effective_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What an account is and has been, at one `ledger_seq` (its newest entry; 0 before the first).

    Always `granted + refunded − spent − expired − revoked = remaining` (lifetime totals) and
    `remaining = available + held`. `available_micros` is what can be reserved or debited now,
    before any credit limit; it is negative while `debt_micros` are owed. `pending_micros` is
    granted with an effective time that has not come yet; it cannot be spent and is in no other
    number. `lots`, in spend order, and `pending`, the grants that are not effective yet, soonest
    first, are empty unless they were asked for with `balance(…, include_lots=True)`; each has at
    most 1000.
    """

    ledger_seq: int
    available_micros: int
    held_micros: int
    remaining_micros: int
    granted_micros: int
    spent_micros: int
    expired_micros: int
    revoked_micros: int
    refunded_micros: int
    debt_micros: int
    credit_limit_micros: int
    pending_micros: int = 0
    lots: tuple[Lot, ...] = ()
    pending: tuple[Lot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What an account has and what it may do.

    `holds_use_credit`: whether holds may use `balance.credit_limit_micros`, too; charges always
    may. `frozen`: it takes no new work and no credits, and what runs may end. `create_time` is None
    if the account does not exist. `allowance` is None if it never had one. `refill_time` is when it
    is renewed next, None if its period is OFF.
    """

    account: str
    unit: str
    balance: Balance
    holds_use_credit: bool
    frozen: bool
    create_time: datetime | None
    allowance: Allowance | None = None
    refill_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the append-only ledger: something that changed what the account owns.

    `seq` counts 1, 2, 3 … per account without gaps. `amount_micros` is the signed change of
    `remaining_micros`, never 0 but for a CORRECTION. `reservation_id`, `key` and `reason` are empty
    if there was none; `key` is the `idempotency_key`, `request_id` or `capture_id` that caused it.
    `related_seq` is the grant whose lot expired or that was revoked, the charge given back, or the
    entry that is set right, otherwise 0. `usage` and `metadata` are None if none was sent.
    `description` is a short English text for the account's owner, without ids, keys, labels or
    reasons.
    """

    seq: int
    kind: EntryKind
    amount_micros: int
    remaining_after_micros: int
    create_time: datetime
    reservation_id: str
    key: str
    related_seq: int
    labels: dict[str, str]
    usage: Usage | None
    metadata: dict[str, Any] | None
    reason: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A hold and its history.

    `held_micros` is what it holds now, 0 unless ACTIVE. `reserved_micros` is all that was ever put
    on hold for it, `captured_micros` all that was charged by settles, `released_micros` all that
    went back, `expiry_charged_micros` what was charged because it expired. `end_time` is None while
    ACTIVE. `late` is True if it was settled after it had expired.
    """

    reservation_id: str
    state: ReservationState
    held_micros: int
    reserved_micros: int
    captured_micros: int
    released_micros: int
    expiry_charged_micros: int
    on_expiry: OnExpiry
    expire_time: datetime
    create_time: datetime
    end_time: datetime | None
    late: bool
    ttl: timedelta
    labels: dict[str, str]
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveResult:
    """What is held, and until when.

    `created` is True if this call made the hold; if False, another call of the same id did: do not
    release its hold. `balance` is the account right after the hold was made.
    """

    held_micros: int
    expire_time: datetime
    created: bool
    replayed: bool
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleResult:
    """Where the charge came from: charged = from_hold + overage, amount = charged + shortfall.

    `released_micros` went back to the account. `late` is True if the reservation had expired.
    `entry_seq` names the ledger entry, 0 if nothing was taken by this call.
    """

    charged_micros: int
    from_hold_micros: int
    overage_micros: int
    shortfall_micros: int
    released_micros: int
    late: bool
    replayed: bool
    entry_seq: int
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseResult:
    """How the reservation ended; `changed` is True if this call ended it."""

    changed: bool
    reservation: Reservation
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendResult:
    """What the reservation holds now, until when, and what becomes of it then."""

    held_micros: int
    expire_time: datetime
    on_expiry: OnExpiry
    replayed: bool
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class DebitResult:
    """What was charged, now or by an earlier equal request."""

    status: DebitStatus
    entry: Entry
    replayed: bool
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantResult:
    """What was put in. `entry.seq` names the lot; `debt_repaid_micros` of it repaid debt.

    `pending` is True if the credits wait for their `effective_time`; `entry` is None then, as it is
    written when they become effective. `revoked_micros` of it was revoked at once, by a revocation
    that came before the grant.
    """

    entry: Entry | None
    debt_repaid_micros: int
    replayed: bool
    balance: Balance
    pending: bool = False
    revoked_micros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundResult:
    """What was given back by this refund, and by all refunds of the charge.

    `entry` is the first of two, if part went to lots that live and part got a grace time.
    """

    entry: Entry
    refunded_micros: int
    charge_refunded_micros: int
    replayed: bool
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeResult:
    """What was taken, and how much of the grant is revoked.

    `revoked_micros` is what this call took, and `entry` that of the ledger; 0 and None if it took
    nothing, as an earlier call did, perhaps one whose answer was lost. `grant_revoked_micros` is
    revoked of the grant all in all. `tombstone` is True if the grant has not come or is not
    effective yet: the revocation waits for it. Then the balance is all zeros, and `account` and
    `unit` are empty if nobody named them.
    """

    account: str
    unit: str
    balance: Balance
    entry: Entry | None
    revoked_micros: int
    grant_revoked_micros: int
    tombstone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinstateResult:
    """What was given back, and how much of the grant is still revoked.

    `reinstated_micros` is what this call gave back, and `entry` that of the ledger; 0 and None if
    it gave nothing. The other fields are as in `RevokeResult`.
    """

    account: str
    unit: str
    balance: Balance
    entry: Entry | None
    reinstated_micros: int
    grant_revoked_micros: int
    tombstone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The sums of all accounts of a unit, from one snapshot taken at `read_time`.

    Lifetime totals are `granted_micros` (allowances and positive corrections included),
    `spent_micros`, `refunded_micros`, `expired_micros` and `revoked_micros` (less what was
    reinstated). `outstanding_micros` is what the accounts own now: granted + refunded − spent −
    expired − revoked. `held_micros` of it is held, `debt_micros` is what accounts in debt owe, and
    `pending_micros` is granted and not effective yet.
    """

    unit: str
    account_count: int
    granted_micros: int
    spent_micros: int
    refunded_micros: int
    expired_micros: int
    revoked_micros: int
    outstanding_micros: int
    held_micros: int
    debt_micros: int
    pending_micros: int
    read_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRow:
    """The charges of one group.

    `values` has one text for each thing that was summed by, empty where a charge has none.
    `refunded_micros` of `charged_micros` has been given back since, whenever that was.
    """

    values: tuple[str, ...]
    charged_micros: int
    refunded_micros: int
    charge_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendReport:
    """The charges that match, summed by group, from one snapshot taken at `read_time`.

    `rows` are the groups with the largest charges, largest first, then by their values. `total`
    sums all charges, also those of groups beyond the limit; `group_count` counts all groups.
    """

    rows: tuple[SpendRow, ...]
    total: SpendRow
    group_count: int
    read_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What accounts of a unit get when they are created; None = nothing of the kind."""

    unit: str
    signup_grant: SignupGrant | None
    allowance: Allowance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An API key, or a client certificate by its `certificate_name`, empty for a key.

    `operations_per_second_max` 0 = no limit. `last_use_time` is to the minute, None if it was never
    used; `revoke_time` is None if it was not revoked.
    """

    credential_id: str
    name: str
    scopes: tuple[Scope, ...]
    certificate_name: str
    operations_per_second_max: int
    create_time: datetime
    last_use_time: datetime | None
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedApiKey:
    """A key that was made. `api_key` is shown this once, and not in the `repr`."""

    credential: Credential
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in the books of an account that is not as it must be.

    `what` differs, such as `lot 3 available`: `stored_micros` is stored, 0 if nothing is, and
    `expected_micros` should be. `description` says it in one English sentence.
    """

    what: str
    stored_micros: int
    expected_micros: int
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What was found: every difference, at most 1000; none if the account is sound.

    `balance` is the account as it is stored, `entry_count` how many entries were checked.
    """

    differences: tuple[Difference, ...]
    balance: Balance
    entry_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """What was set right; each list has at most 1000.

    `repaired` was wrong before, `remaining` is wrong still and needs a person, `corrections` are
    the entries that were posted. All are empty if nothing was left to do, as an earlier call had
    done it, perhaps one whose answer was lost. `balance` is the account right after it.
    """

    repaired: tuple[Difference, ...]
    remaining: tuple[Difference, ...]
    corrections: tuple[Entry, ...]
    balance: Balance
