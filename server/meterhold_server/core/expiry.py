"""What time does to an account. Once, and never early.

Due holds end, due lots are written off, allowances are refilled, and pending grants land.

Runs before every operation on the account. What the sweeper submits is the operation that does
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush

from meterhold_server.core import allowances, funds
from meterhold_server.core.landing import land
from meterhold_server.core.model import (
    Account,
    Allowance,
    EntryKind,
    Lot,
    OnExpiry,
    PendingGrant,
    PendingState,
    Reservation,
    ReservationState,
)
from meterhold_server.core.outcomes import Expired
from meterhold_server.core.posting import Posting


def is_due(account: Account, now: datetime) -> bool:
    """Whether something may have to happen to the account by itself."""
    return account.next_expire_time is not None and account.next_expire_time <= now


def expire_due(posting: Posting, account: Account) -> Expired:
    """Let everything due happen, in the order of its own times, as if swept on time.

    But an allowance is refilled once, for the period that it is now, however many were missed.
    """
    expired = Expired(account.balance())
    due = [(_due_order(item, posting.now), item) for item in _due(account, posting.now)]
    heapify(due)
    while due:
        _, item = heappop(due)
        match item:
            case Lot():
                expired.lots_expired += expire_lot(posting, account, item)
            case Allowance():
                allowances.refill(posting, account, item)
                expired.allowances_refilled += 1
            case PendingGrant():
                lot = land(posting, account, item).lot
                expired.grants_landed += 1
                if lot.expired(posting.now):
                    heappush(due, (_due_order(lot, posting.now), lot))
            case Reservation() if item.on_expiry is OnExpiry.CHARGE:
                _charge_hold(posting, account, item)
                expired.holds_charged += 1
            case Reservation():
                _release_hold(posting, account, item)
                expired.holds_released += 1
    account.next_expire_time = min(_times(account), default=None)
    posting.touch(account)
    expired.balance = account.balance()
    return expired


_Item = Lot | Reservation | Allowance | PendingGrant
_Order = tuple[datetime, int, str]


def _due(account: Account, now: datetime) -> Iterator[_Item]:
    for reservation in account.reservations.values():
        if reservation.active and reservation.expire_time <= now:
            yield reservation
    for lot in account.lots:
        if lot.expired(now):
            yield lot
    if (refill_time := _refill_time(account)) and refill_time <= now:
        assert account.allowance is not None
        yield account.allowance
    for pending in _open(account):
        if pending.effective_time <= now:
            yield pending


def _due_order(item: _Item, now: datetime) -> _Order:
    """By time; at one instant what ends comes before what begins; then by id. Always the same."""
    match item:
        case Reservation():
            return item.expire_time, 0, item.reservation_id
        case Lot():
            assert item.expire_time is not None
            return item.expire_time, 1, f"{item.seq:020}"
        case Allowance():
            return allowances.period_begin(item, now), 2, ""
        case PendingGrant():
            return item.effective_time, 3, item.idempotency_key


def expire_lot(posting: Posting, account: Account, lot: Lot) -> int:
    """Write off what is available; what is held lives on. Answers 1 if there was any."""
    micros = lot.available_micros
    if micros == 0:
        return 0
    lot.available_micros = 0
    account.lots_available_micros -= micros
    funds.write_off(posting, account, lot, micros)
    return 1


def _charge_hold(posting: Posting, account: Account, reservation: Reservation) -> None:
    """Charge what is still held, remembering from where: a late settle may true it up."""
    micros = reservation.open_micros
    if micros:
        parts = funds.charge_hold(posting, account, reservation.parts, reservation.on_credit_micros)
        account.spent_micros += micros
        entry = posting.entry(
            account,
            EntryKind.EXPIRY_CHARGE,
            -micros,
            parts,
            reservation_id=reservation.reservation_id,
            labels=reservation.labels,
        )
        reservation.parts = parts
        reservation.on_credit_micros = micros - sum(part for _, part in parts)
        reservation.expiry_charged_micros = micros
        reservation.expiry_charge_seq = entry.seq
    _end(posting, reservation)


def _release_hold(posting: Posting, account: Account, reservation: Reservation) -> None:
    micros = reservation.open_micros
    parts, on_credit = funds.detach(reservation, micros)
    funds.free_hold(
        posting, account, parts, on_credit, reservation.expire_time, reservation.reservation_id
    )
    reservation.released_micros += micros
    _end(posting, reservation)


def _end(posting: Posting, reservation: Reservation) -> None:
    reservation.state = ReservationState.EXPIRED
    reservation.end_time = reservation.expire_time
    posting.touch_reservation(reservation)


def _times(account: Account) -> Iterator[datetime]:
    """When anything of the account is next to happen by itself."""
    for lot in account.lots:
        if lot.available_micros and lot.expire_time:
            yield lot.expire_time
    for reservation in account.reservations.values():
        if reservation.active:
            yield reservation.expire_time
    if refill_time := _refill_time(account):
        yield refill_time
    for pending in _open(account):
        yield pending.effective_time


def _refill_time(account: Account) -> datetime | None:
    return account.allowance.refill_time if account.allowance else None


def _open(account: Account) -> Iterator[PendingGrant]:
    for pending in account.pending.values():
        if pending.state is PendingState.PENDING:
            yield pending
