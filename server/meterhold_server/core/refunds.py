"""RefundCharge: give charges back into the very lots they came from, newest first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from meterhold_server.core import funds, replay
from meterhold_server.core.model import (
    REFUNDABLE,
    Account,
    ChargeRefund,
    ClaimKind,
    Entry,
    EntryKind,
    Part,
    Receipt,
    Reservation,
    ReservationState,
)
from meterhold_server.core.operations import RefundCharge
from meterhold_server.core.outcomes import Reason, Refunded, Rejected
from meterhold_server.core.posting import Posting, claim_key
from meterhold_server.core.range import refuse_range


class _Piece(NamedTuple):
    """Part of a charge: what was owed of it, and of its lots, in the order they were taken."""

    owed_micros: int
    parts: list[Part]


def refund_charge(
    posting: Posting, account: Account | None, operation: RefundCharge
) -> Refunded | Rejected:
    request = replay.refund_request(operation)
    key = claim_key(ClaimKind.REFUND_CHARGE, operation, operation.idempotency_key)
    used = posting.state.claims.get(key)
    if used:
        return replay.mismatch(request, used.receipt) or Refunded.again(used)
    charge = account.charges.get(operation.charge_seq) if account else None
    if account is None or charge is None:
        return Rejected(Reason.ENTRY_NOT_FOUND, {"seq": operation.charge_seq})
    if problem := _not_refundable(posting, account, charge):
        return Rejected(Reason.INVALID_FIELD, {"field": "charge", "description": problem})
    refund = account.charge_refunds.get(charge.seq)
    refunded = refund.refunded_micros if refund else 0
    left = max(0, -charge.amount_micros - refunded)
    micros = operation.amount_micros or left
    if micros > left or micros == 0:
        return Rejected(Reason.REFUND_EXCEEDS_CHARGE, {"refundable_micros": left})
    if refusal := refuse_range(account, returned_micros=micros):
        return refusal
    # Nothing can fail from here on.
    piece = _piece(charge, refunded, micros)
    entry = give_back(
        posting,
        account,
        piece.parts,
        piece.owed_micros,
        expired_lot_grace=operation.expired_lot_grace,
        key=operation.idempotency_key,
        reservation_id=charge.reservation_id,
        related_seq=charge.seq,
        labels=operation.labels,
        metadata=operation.metadata,
        reason=operation.reason,
    )
    given_back = record(posting, account, charge.seq, micros)
    outcome = Refunded(account.balance(), entry, micros, given_back)
    posting.claim(key, account.account_id, Receipt(request, outcome.answer()), entry)
    return outcome


def _not_refundable(posting: Posting, account: Account, charge: Entry) -> str | None:
    """Why an entry is no charge that can be given back; None if it is one."""
    if charge.kind not in REFUNDABLE:
        return f"names a {charge.kind}; debits, captures and charged expiries can be refunded"
    if charge.kind is EntryKind.EXPIRY_CHARGE:
        reservation = account.reservations[charge.reservation_id]
        if takes_settles(reservation, posting):
            return "names a hold charged at its expiry; settle it late, at what it cost"
    return None


def takes_settles(reservation: Reservation, posting: Posting) -> bool:
    """Whether a job may still be charged: an expired one for the grace time."""
    if reservation.state is ReservationState.EXPIRED:
        return reservation.expire_time + posting.rules.settle_grace > posting.now
    return reservation.active


def record(posting: Posting, account: Account, charge_seq: int, micros: int) -> int:
    """Count `micros` more of a charge as given back. Answers how many that makes."""
    refund = account.charge_refunds.get(charge_seq) or ChargeRefund(account.account_id, charge_seq)
    refund.refunded_micros += micros
    account.charge_refunds[charge_seq] = refund
    posting.touch_charge_refund(refund)
    return refund.refunded_micros


def give_back(
    posting: Posting,
    account: Account,
    parts: list[Part],
    owed_micros: int,
    *,
    expired_lot_grace: timedelta | None = None,
    **of_entry: Any,
) -> Entry:
    """Give back a piece of a charge: what was owed first, then the lots, last taken first.

    What came from expired lots expires again, or opens a lot that lives for the grace time. Answers
    the first entry.
    """
    late: list[Part] = []
    if expired_lot_grace is not None:
        expired = {lot.seq for lot in account.lots if lot.expired(posting.now)}
        late = [part for part in parts if part.lot_seq in expired]
        parts = [part for part in parts if part.lot_seq not in expired]
    entries: list[Entry] = []
    if parts or owed_micros:
        entries.append(
            funds.restore(posting, account, EntryKind.REFUND, parts, owed_micros, **of_entry)
        )
    if late and expired_lot_grace is not None:
        entries.append(_to_a_late_lot(posting, account, late, expired_lot_grace, of_entry))
    return entries[0]


def _to_a_late_lot(
    posting: Posting,
    account: Account,
    parts: list[Part],
    grace: timedelta,
    of_entry: dict[str, Any],
) -> Entry:
    """One lot for all that came from expired ones, spent as the first of them was."""
    micros = sum(part for _, part in parts)
    first = next(lot for lot in account.lots if lot.seq == parts[0].lot_seq)
    rest = micros - funds.repay(account, micros)
    account.refunded_micros += micros
    new = [Part(account.seq + 1, rest)] if rest else []
    entry = posting.entry(account, EntryKind.REFUND, micros, new, **of_entry)
    if rest:
        lot = funds.returned_lot(entry, rest)
        lot.priority, lot.category = first.priority, first.category
        lot.expire_time = posting.now + grace
        funds.add_lot(posting, account, lot)
    return entry


def _piece(charge: Entry, skipped_micros: int, micros: int) -> _Piece:
    """The next `micros` after those given back before: what was owed, then lots, newest first."""
    owed = -charge.amount_micros - sum(part for _, part in charge.parts)
    owed_now = min(max(0, owed - skipped_micros), micros)
    skip = max(0, skipped_micros - owed)
    left = micros - owed_now
    parts: list[Part] = []
    for lot_seq, part in reversed(charge.parts):
        skipped = min(skip, part)
        skip -= skipped
        taken = min(part - skipped, left)
        left -= taken
        if taken:
            parts.insert(0, Part(lot_seq, taken))
    return _Piece(owed_now, parts)
