"""Reservations that are gone while entries name them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from meterhold_server.core.corrections import (
    Corrections,
    stored_and_expected,
)
from meterhold_server.core.model import OnExpiry, Receipt, Reservation, ReservationState
from meterhold_server.core.summary import HoldCharges, LostReservation

_UNKNOWN: Final = Receipt({}, {})
"""Equal to no request: whoever repeats the lost one is told that its id is used."""


def reopen_holds(ledger: Corrections) -> None:
    """Put each back as released, with what its entries charged.

    What it held is free, and its id stays used: how long it was to hold what is not known.
    """
    account, summary = ledger.account, ledger.summary
    for reservation_id, lost in summary.lost_reservations.items():
        charged = summary.charged[reservation_id]
        found = _released(account.account_id, reservation_id, lost, charged)
        found.end_time = ledger.now
        account.reservations[reservation_id] = found
        reason = f"reservation {reservation_id!r} was gone, and is released"
        metadata = stored_and_expected(0, charged.micros)
        ledger.note(reason, metadata, reservation_id=reservation_id)


def _released(
    account_id: str, reservation_id: str, lost: LostReservation, charged: HoldCharges
) -> Reservation:
    micros = max(0, charged.micros)
    at_expiry = min(max(0, charged.at_expiry_micros), micros)
    captured = micros - at_expiry
    reserved = max(1, micros)
    return Reservation(
        account_id,
        reservation_id,
        ReservationState.RELEASED,
        reserved_micros=reserved,
        open_micros=0,
        parts=[],
        on_credit_micros=0,
        on_expiry=OnExpiry.RELEASE,
        ttl=max(lost.last_time - lost.first_time, timedelta(microseconds=1)),
        expire_time=lost.last_time,
        create_time=lost.first_time,
        opening=_UNKNOWN,
        captured_micros=captured,
        from_hold_micros=captured,
        released_micros=reserved - micros,
        expiry_charged_micros=at_expiry,
    )
