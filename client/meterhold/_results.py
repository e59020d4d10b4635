"""What the calls answer: frozen values, made here from the messages of the wire.

All amounts are int micro-units, 1 credit = 1 000 000 micros. All times are aware, in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from meterhold import _enums, _metadata
from meterhold._enums import (
    DebitStatus,
    EntryKind,
    LotCategory,
    OnExpiry,
    ReservationState,
)
from meterhold._values import Cash, Source, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from meterhold.v1 import (
        admin_service_pb2,
        ledger_service_pb2,
        metering_service_pb2,
        types_pb2,
    )

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ON_EXPIRY = _enums.by_number(_enums.ON_EXPIRY_NUMBERS)
_LOT_CATEGORY = _enums.by_number(_enums.LOT_CATEGORY_NUMBERS)
_ENTRY_KIND = _enums.by_number(_enums.ENTRY_KIND_NUMBERS)
_RESERVATION_STATE = _enums.by_number(_enums.RESERVATION_STATE_NUMBERS)
_DEBIT_STATUS = _enums.by_number(_enums.DEBIT_STATUS_NUMBERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What one grant put in and how much of it is left.

    `seq` is that of the entry that opened the lot. `available_micros` can still be spent;
    `held_micros` is earmarked by active reservations and outlives the lot's expiry until they end.
    Lots are spent by ascending `priority`, 0 to 1000. `expire_time` None = never. `cash` and
    `source` are None if the grant did not say.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What an account is and has been, at one `ledger_seq` (its newest entry; 0 before the first).

    Always `granted + refunded − spent − expired − revoked = remaining` (lifetime totals) and
    `remaining = available + held`. `available_micros` is what can be reserved or debited now,
    before any credit limit; it is negative while `debt_micros` are owed. `lots` is empty unless it
    was asked for with `balance(…, include_lots=True)`.
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
    lots: tuple[Lot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What an account has and what it may do.

    `holds_use_credit`: whether holds may use `balance.credit_limit_micros`, too; charges always
    may. `frozen`: it takes no new work and no credits, and what runs may end. `create_time` is None
    if the account does not exist.
    """

    account: str
    unit: str
    balance: Balance
    holds_use_credit: bool
    frozen: bool
    create_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the append-only ledger: something that changed what the account owns.

    `seq` counts 1, 2, 3 … per account without gaps. `amount_micros` is the signed change of
    `remaining_micros`, never 0. `reservation_id`, `key` and `reason` are empty if there was none;
    `key` is the `idempotency_key`, `request_id` or `capture_id` that caused it. `related_seq` is
    the grant whose lot expired or the charge given back, otherwise 0. `usage` and `metadata` are
    None if none was sent.
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
    """What was put in. `entry.seq` names the lot; `debt_repaid_micros` of it repaid debt."""

    entry: Entry
    debt_repaid_micros: int
    replayed: bool
    balance: Balance


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


class Page(Protocol):
    """A response that is a page."""

    next_page_token: str


def reserve(response: metering_service_pb2.ReserveResponse) -> ReserveResult:
    return ReserveResult(
        held_micros=response.held_micros,
        expire_time=_time(response.expire_time),
        created=response.created,
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def settle(response: metering_service_pb2.SettleResponse) -> SettleResult:
    return SettleResult(
        charged_micros=response.charged_micros,
        from_hold_micros=response.from_hold_micros,
        overage_micros=response.overage_micros,
        shortfall_micros=response.shortfall_micros,
        released_micros=response.released_micros,
        late=response.late,
        replayed=response.replayed,
        entry_seq=response.entry_seq,
        balance=_balance(response.balance),
    )


def release(response: metering_service_pb2.ReleaseResponse) -> ReleaseResult:
    return ReleaseResult(
        changed=response.changed,
        reservation=_reservation(response.reservation),
        balance=_balance(response.balance),
    )


def extend(response: metering_service_pb2.ExtendResponse) -> ExtendResult:
    return ExtendResult(
        held_micros=response.held_micros,
        expire_time=_time(response.expire_time),
        on_expiry=_ON_EXPIRY.get(response.on_expiry, OnExpiry.UNKNOWN),
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def debit(
    response: metering_service_pb2.DebitResponse | metering_service_pb2.DebitOnceResponse,
) -> DebitResult:
    return DebitResult(
        status=_DEBIT_STATUS.get(response.status, DebitStatus.UNKNOWN),
        entry=_entry(response.entry),
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def grant(response: metering_service_pb2.GrantOnceResponse) -> GrantResult:
    return GrantResult(
        entry=_entry(response.entry),
        debt_repaid_micros=response.debt_repaid_micros,
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def refund(response: metering_service_pb2.RefundChargeResponse) -> RefundResult:
    return RefundResult(
        entry=_entry(response.entry),
        refunded_micros=response.refunded_micros,
        charge_refunded_micros=response.charge_refunded_micros,
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def balance(response: metering_service_pb2.BalanceResponse) -> Balance:
    return _balance(response.balance, tuple(map(_lot, response.lots)))


def configured(response: admin_service_pb2.ConfigureAccountResponse) -> Account:
    return _account(response.account)


def account(response: admin_service_pb2.GetAccountResponse) -> Account:
    return _account(response.account)


def accounts(response: admin_service_pb2.ListAccountsResponse) -> Iterator[Account]:
    return map(_account, response.accounts)


def reservation(response: ledger_service_pb2.GetReservationResponse) -> Reservation:
    return _reservation(response.reservation)


def entry(response: ledger_service_pb2.GetEntryResponse) -> Entry:
    return _entry(response.entry)


def reservations(response: ledger_service_pb2.ListReservationsResponse) -> Iterator[Reservation]:
    return map(_reservation, response.reservations)


def entries(response: ledger_service_pb2.ListEntriesResponse) -> Iterator[Entry]:
    return map(_entry, response.entries)


def lots(response: ledger_service_pb2.ListLotsResponse) -> Iterator[Lot]:
    return map(_lot, response.lots)


def _balance(message: types_pb2.Balance, lots: tuple[Lot, ...] = ()) -> Balance:
    return Balance(
        ledger_seq=message.ledger_seq,
        available_micros=message.available_micros,
        held_micros=message.held_micros,
        remaining_micros=message.remaining_micros,
        granted_micros=message.granted_micros,
        spent_micros=message.spent_micros,
        expired_micros=message.expired_micros,
        revoked_micros=message.revoked_micros,
        refunded_micros=message.refunded_micros,
        debt_micros=message.debt_micros,
        credit_limit_micros=message.credit_limit_micros,
        lots=lots,
    )


def _account(message: admin_service_pb2.Account) -> Account:
    return Account(
        account=message.account,
        unit=message.unit,
        balance=_balance(message.balance),
        holds_use_credit=message.holds_use_credit,
        frozen=message.frozen,
        create_time=_time(message.create_time) if message.HasField("create_time") else None,
    )


def _entry(message: types_pb2.Entry) -> Entry:
    return Entry(
        seq=message.seq,
        kind=_ENTRY_KIND.get(message.kind, EntryKind.UNKNOWN),
        amount_micros=message.amount_micros,
        remaining_after_micros=message.remaining_after_micros,
        create_time=_time(message.create_time),
        reservation_id=message.reservation_id,
        key=message.key,
        related_seq=message.related_seq,
        labels=dict(message.labels),
        usage=_usage(message.usage) if message.HasField("usage") else None,
        metadata=(
            _metadata.from_struct(message.metadata) if message.HasField("metadata") else None
        ),
        reason=message.reason,
    )


def _usage(message: types_pb2.Usage) -> Usage:
    return Usage(
        provider=message.provider,
        model=message.model,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cache_read_tokens=message.cache_read_tokens,
        cache_write_tokens=message.cache_write_tokens,
        provider_cost_micros=message.provider_cost_micros,
        stop_reason=message.stop_reason,
    )


def _lot(message: types_pb2.Lot) -> Lot:
    return Lot(
        seq=message.seq,
        granted_micros=message.granted_micros,
        available_micros=message.available_micros,
        held_micros=message.held_micros,
        priority=message.priority,
        category=_LOT_CATEGORY.get(message.category, LotCategory.UNKNOWN),
        expire_time=_time(message.expire_time) if message.HasField("expire_time") else None,
        create_time=_time(message.create_time),
        idempotency_key=message.idempotency_key,
        cash=_cash(message.cash) if message.HasField("cash") else None,
        source=_source(message.source) if message.HasField("source") else None,
    )


def _cash(message: types_pb2.Cash) -> Cash:
    return Cash(currency_code=message.currency_code, minor_units=message.minor_units)


def _source(message: types_pb2.Source) -> Source:
    return Source(
        provider=message.provider,
        order_id=message.order_id,
        store_id=message.store_id,
        test_mode=message.test_mode,
        variant_id=message.variant_id,
    )


def _reservation(message: types_pb2.Reservation) -> Reservation:
    return Reservation(
        reservation_id=message.reservation_id,
        state=_RESERVATION_STATE.get(message.state, ReservationState.UNKNOWN),
        held_micros=message.held_micros,
        reserved_micros=message.reserved_micros,
        captured_micros=message.captured_micros,
        released_micros=message.released_micros,
        expiry_charged_micros=message.expiry_charged_micros,
        on_expiry=_ON_EXPIRY.get(message.on_expiry, OnExpiry.UNKNOWN),
        expire_time=_time(message.expire_time),
        create_time=_time(message.create_time),
        end_time=_time(message.end_time) if message.HasField("end_time") else None,
        late=message.late,
        ttl=_duration(message.ttl),
        labels=dict(message.labels),
        metadata=(
            _metadata.from_struct(message.metadata) if message.HasField("metadata") else None
        ),
    )


def _time(message: Timestamp) -> datetime:
    # By hand, because Timestamp.ToDatetime takes several times as long.
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _duration(message: Duration) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
