"""Repairs of reservations: what they hold, and what they were charged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from meterhold_server.core.corrections import Corrections
from meterhold_server.core.counting import Beside, Total
from meterhold_server.core.model import Account, Lot, Part, Reservation, ReservationState
from meterhold_server.core.summary import Summary

_NOT_NEGATIVE: Final = (
    "open_micros",
    "on_credit_micros",
    "captured_micros",
    "from_hold_micros",
    "released_micros",
    "expiry_charged_micros",
)


def repair_holds(ledger: Corrections) -> None:
    """Make each loaded reservation agree with itself, with its lots and with its entries."""
    account, summary = ledger.account, ledger.summary
    for reservation in account.reservations.values():
        _repair_state(reservation, ledger.now)
    held = earmarked(account)
    on_credit = sum(r.on_credit_micros for r in account.reservations.values() if r.active)
    doubted = on_credit != account.held_on_credit_micros
    lots = {lot.seq: lot for lot in account.lots}
    for reservation in account.reservations.values():
        for name in _NOT_NEGATIVE:
            setattr(reservation, name, max(0, getattr(reservation, name)))
        if reservation.active:
            before = reservation.parts
            if all(
                lot_seq in lots and lots[lot_seq].held_micros == held[lot_seq]
                for lot_seq, _ in before
            ):
                _open_by_parts(reservation, doubted=doubted)
            else:
                _open_by_lots(reservation, summary, lots.values(), held)
            if reservation.parts != before:
                held = earmarked(account)
        elif reservation.state is ReservationState.EXPIRED:
            _fit(reservation, min(reservation.open_micros, reservation.expiry_charged_micros))
        else:
            _fit(reservation, 0)
        _repair_charged(reservation, ledger)
        _repair_reserved(reservation)


def _repair_state(reservation: Reservation, now: datetime) -> None:
    """What a settle answered says that it is settled. Else one that has ended holds nothing.

    When it ended, if that is not known, is now or when it was to expire.
    """
    ended = reservation.end_time is not None
    done = reservation.active and ended and not reservation.open_micros
    if reservation.closing is not None:
        reservation.state = ReservationState.SETTLED
    elif done or reservation.state is ReservationState.SETTLED:
        reservation.state = ReservationState.RELEASED
    if reservation.active:
        reservation.end_time = None
    elif not ended:
        reservation.end_time = min(now, reservation.expire_time)


def earmarked(account: Account) -> dict[int, int]:
    """What active reservations hold of each lot."""
    held: dict[int, int] = {}
    for reservation in account.reservations.values():
        for lot_seq, part in reservation.parts if reservation.active else ():
            held[lot_seq] = held.get(lot_seq, 0) + part
    return held


def _open_by_parts(reservation: Reservation, *, doubted: bool) -> None:
    """The lots agree with its parts, so that those are right, and so is what is on credit.

    Unless that is `doubted`, as the account says otherwise: then what was reserved and is not used
    is open.
    """
    in_lots = sum(part for _, part in reservation.parts)
    if doubted and reservation.open_micros == _unused(reservation) >= in_lots:
        reservation.on_credit_micros = reservation.open_micros - in_lots
    reservation.open_micros = in_lots + reservation.on_credit_micros


def _open_by_lots(
    reservation: Reservation, summary: Summary, lots: Iterable[Lot], held: dict[int, int]
) -> None:
    """The lots do not agree with its parts: what was reserved and is not used decides.

    If it is what lots hold whose entries vouch for them, its parts are those.
    """
    unused = _unused(reservation)
    off = {
        lot.seq: lot.held_micros - held.get(lot.seq, 0)
        for lot in lots
        if lot.held_micros != held.get(lot.seq, 0) and _vouched(lot, summary)
    }
    parts = _shifted(reservation, off)
    if sum(part for _, part in parts) + reservation.on_credit_micros == unused:
        reservation.parts = parts
        reservation.open_micros = unused
    elif reservation.open_micros != unused or _parted(reservation) != unused:
        _fit(reservation, max(0, unused))


def _vouched(lot: Lot, summary: Summary) -> bool:
    """Whether the entries of a lot say what it has, so that what it holds is right."""
    has = lot.available_micros + lot.held_micros + lot.repaid_micros
    return has == summary.parts.get(lot.seq, 0)


def _shifted(reservation: Reservation, off: dict[int, int]) -> list[Part]:
    """Its parts, changed by lot. What there is less of than nothing makes the sum wrong."""
    parts = dict(reservation.parts)
    for lot_seq, micros in off.items():
        parts[lot_seq] = parts.get(lot_seq, 0) + micros
    return [Part(lot_seq, micros) for lot_seq, micros in parts.items() if micros > 0]


def _fit(reservation: Reservation, open_micros: int) -> None:
    """Make it have `open_micros` open: what is too much is cut, last taken first."""
    reservation.open_micros = open_micros
    left = open_micros
    parts: list[Part] = []
    for lot_seq, part in reservation.parts:
        kept = min(left, part)
        left -= kept
        if kept:
            parts.append(Part(lot_seq, kept))
    reservation.parts = parts
    reservation.on_credit_micros = left


def _repair_charged(reservation: Reservation, ledger: Corrections) -> None:
    """What was charged is what the entries say. More than was charged is never given back."""
    charged = ledger.summary.charged[reservation.reservation_id]
    if reservation.captured_micros + reservation.expiry_charged_micros == charged.micros:
        return
    micros, at_expiry = max(0, charged.micros), reservation.expiry_charged_micros
    if reservation.captured_micros == charged.captured_micros and not charged.corrected_micros:
        at_expiry = max(0, charged.at_expiry_micros)
    reservation.expiry_charged_micros = min(at_expiry, micros)
    reservation.captured_micros = micros - reservation.expiry_charged_micros
    if charged.micros < 0:
        reason = f"the entries of reservation {reservation.reservation_id!r} charged less than 0"
        ledger.count_beside(Beside(Total.CHARGED, 0, -charged.micros), reason, 0,
                            reservation_id=reservation.reservation_id)  # fmt: skip


def _repair_reserved(reservation: Reservation) -> None:
    """What was reserved and is nowhere else has been released. Nothing is reserved for nothing."""
    held = reservation.open_micros if reservation.active else 0
    used = reservation.from_hold_micros + reservation.expiry_charged_micros + held
    reservation.reserved_micros = max(1, used, reservation.reserved_micros)
    reservation.released_micros = reservation.reserved_micros - used


def _parted(reservation: Reservation) -> int:
    return sum(part for _, part in reservation.parts) + reservation.on_credit_micros


def _unused(reservation: Reservation) -> int:
    """What was reserved and neither captured nor let go."""
    return (
        reservation.reserved_micros
        - reservation.from_hold_micros
        - reservation.released_micros
        - reservation.expiry_charged_micros
    )
