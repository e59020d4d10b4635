"""Rebuild: set right what differs in an account, without changing its history.

What is kept beside the ledger is computed again from it. What the ledger lacks or contradicts is
posted as CORRECTION entries. A sound account gets no write. Where the account would still not be
what the tables allow, nothing is done at all: a person has to look.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from meterhold_server.core.corrections import BeyondRepairError, Corrections, mend
from meterhold_server.core.counting import not_spent
from meterhold_server.core.invariants import first_due
from meterhold_server.core.model import (
    BALANCE_MICROS_MAX,
    EMPTY_BALANCE,
    Account,
    Lot,
    Reservation,
)
from meterhold_server.core.operations import Rebuild
from meterhold_server.core.outcomes import Rebuilt
from meterhold_server.core.posting import Posting
from meterhold_server.core.repair_holds import repair_holds
from meterhold_server.core.repair_lost_holds import reopen_holds
from meterhold_server.core.repair_lots import repair_lots
from meterhold_server.core.repair_refunds import repair_refunds


def rebuild(posting: Posting, account: Account | None, operation: Rebuild) -> Rebuilt:
    """Repair an account by its summary. Without one there is nothing to repair it by."""
    summary = posting.state.summaries.pop(operation.account_id, None)
    if account is None or summary is None:
        return Rebuilt(account.balance() if account else EMPTY_BALANCE, [])
    before = _copy_of(account)
    ledger = Corrections(account, summary, posting.now)
    try:
        mend(ledger)
        reopen_holds(ledger)
        repair_holds(ledger)
        repair_lots(ledger)
        for claim in operation.deleted_claims:
            ledger.note("a key named an entry that does not exist, and was deleted", claim)
        repair_refunds(ledger)
        _repair_totals(ledger)
        if not _storable(account):
            raise BeyondRepairError
    except BeyondRepairError:
        return Rebuilt(before.balance(), [])
    _write(posting, before, ledger)
    return Rebuilt(account.balance(), ledger.entries)


def _repair_totals(ledger: Corrections) -> None:
    account, summary = ledger.account, ledger.summary
    amounts = [entry.amount_micros for entry in ledger.entries]
    account.seq = ledger.seq
    account.granted_micros = summary.granted_micros + sum(a for a in amounts if a > 0)
    beside = not_spent(ledger.entries)
    account.spent_micros = (
        summary.spent_micros - sum(a for a in amounts if a < 0) - sum(beside.values())
    )
    account.expired_micros = summary.expired_micros + beside["expired"]
    account.refunded_micros = summary.refunded_micros
    account.revoked_micros = summary.revoked_micros + beside["revoked"]
    account.pending_micros = summary.pending_micros
    active = [reservation for reservation in account.reservations.values() if reservation.active]
    account.held_micros = sum(reservation.open_micros for reservation in active)
    account.held_on_credit_micros = sum(reservation.on_credit_micros for reservation in active)
    account.lots_available_micros = sum(lot.available_micros for lot in account.lots)
    times = [time for time in (first_due(account), summary.other_time) if time]
    first = min(times, default=None)
    following = account.next_expire_time
    if first and (following is None or following > first):
        account.next_expire_time = first


def _storable(account: Account) -> bool:
    """Whether the tables would take it: what their constraints say of the rows a rebuild sets."""
    totals = (
        account.granted_micros,
        account.spent_micros,
        account.expired_micros,
        account.revoked_micros,
        account.refunded_micros,
        account.debt_micros,
    )
    return (
        all(0 <= micros <= BALANCE_MICROS_MAX for micros in totals)
        and account.remaining_micros == account.available_micros + account.held_micros
        and not (account.debt_micros and account.lots_available_micros)
        and all(map(_lot_storable, account.lots))
        and all(map(_reservation_storable, account.reservations.values()))
    )


def _lot_storable(lot: Lot) -> bool:
    left = lot.available_micros + lot.held_micros + lot.expired_micros + lot.revoked_here_micros
    return (
        min(lot.available_micros, lot.held_micros, lot.expired_micros, lot.repaid_micros) >= 0
        and left <= lot.granted_micros
        and lot.revoked_micros + lot.expired_micros <= lot.granted_micros
    )


def _reservation_storable(reservation: Reservation) -> bool:
    held = reservation.open_micros if reservation.active else 0
    used = reservation.from_hold_micros + reservation.released_micros
    return (
        reservation.reserved_micros == used + reservation.expiry_charged_micros + held
        and min(reservation.open_micros, reservation.on_credit_micros) >= 0
        and min(reservation.captured_micros, reservation.expiry_charged_micros) >= 0
    )


def _write(posting: Posting, before: Account, ledger: Corrections) -> None:
    """Write the rows that are not as they were, and nothing if there is none."""
    account = ledger.account
    lots = {lot.seq: lot for lot in before.lots}
    for lot in account.lots:
        if lots.get(lot.seq) != lot:
            posting.touch_lot(lot)
    for reservation_id, reservation in account.reservations.items():
        if before.reservations.get(reservation_id) != reservation:
            posting.touch_reservation(reservation)
    for charge_seq, refund in account.charge_refunds.items():
        if refund.refunded_micros and before.charge_refunds.get(charge_seq) != refund:
            posting.touch_charge_refund(refund)
    posting.writes.entries += ledger.entries
    posting.writes.rebuilt = True
    rows = posting.writes
    if account != before or rows.lots or rows.reservations or rows.charge_refunds or rows.entries:
        posting.touch(account)


def _copy_of(account: Account) -> Account:
    return replace(
        account,
        lots=[copy(lot) for lot in account.lots],
        reservations={
            reservation_id: replace(reservation, parts=list(reservation.parts))
            for reservation_id, reservation in account.reservations.items()
        },
        charge_refunds={seq: copy(refund) for seq, refund in account.charge_refunds.items()},
    )
