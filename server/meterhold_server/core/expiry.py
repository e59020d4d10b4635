"""What time does to an account: due holds end, due lots are written off. Once, and never early.

Runs before every operation on the account. What the sweeper submits is the operation that does
nothing else.
"""

from __future__ import annotations

from datetime import datetime

from meterhold_server.core import funds
from meterhold_server.core.model import (
    Account,
    EntryKind,
    Lot,
    OnExpiry,
    Reservation,
    ReservationState,
)
from meterhold_server.core.outcomes import Expired
from meterhold_server.core.posting import Posting


def is_due(account: Account, now: datetime) -> bool:
    """Whether the account may have something to expire."""
    return account.next_expire_time is not None and account.next_expire_time <= now


def expire_due(posting: Posting, account: Account) -> Expired:
    """Let everything due expire, in the order of its own times, as if swept on time."""
    expired = Expired(account.balance())
    for item in sorted(_due(account, posting.now), key=_due_order):
        if isinstance(item, Lot):
            expired.lots_expired += _expire_lot(posting, account, item)
        elif item.on_expiry is OnExpiry.CHARGE:
            _charge_hold(posting, account, item)
            expired.holds_charged += 1
        else:
            _release_hold(posting, account, item)
            expired.holds_released += 1
    account.next_expire_time = min(_expire_times(account), default=None)
    posting.touch(account)
    expired.balance = account.balance()
    return expired


def _due(account: Account, now: datetime) -> list[Lot | Reservation]:
    lots: list[Lot | Reservation] = [lot for lot in account.lots if lot.expired(now)]
    return lots + [
        reservation
        for reservation in account.reservations.values()
        if reservation.active and reservation.expire_time <= now
    ]


def _due_order(item: Lot | Reservation) -> tuple[datetime, bool, str]:
    """By time, holds before lots of the same instant, then by id: the same order every time."""
    assert item.expire_time is not None
    if isinstance(item, Lot):
        return item.expire_time, True, f"{item.seq:020}"
    return item.expire_time, False, item.reservation_id


def _expire_lot(posting: Posting, account: Account, lot: Lot) -> int:
    """Write off what is available; what is held lives on. Answers 1 if there was any."""
    micros = lot.available_micros
    if micros == 0:
        return 0
    lot.available_micros = 0
    account.lots_available_micros -= micros
    posting.touch_lot(lot)
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


def _expire_times(account: Account) -> list[datetime]:
    lots = [lot.expire_time for lot in account.lots if lot.available_micros and lot.expire_time]
    holds = [r.expire_time for r in account.reservations.values() if r.active]
    return lots + holds
