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
    Lot,
    LotCategory,
    Part,
    Receipt,
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
    if charge.kind not in REFUNDABLE:
        description = f"names a {charge.kind}; debits and captures can be refunded"
        return Rejected(Reason.INVALID_FIELD, {"field": "charge", "description": description})
    refund = account.charge_refunds.get(charge.seq)
    refunded = refund.refunded_micros if refund else 0
    left = -charge.amount_micros - refunded
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
    refund = refund or ChargeRefund(account.account_id, charge.seq)
    refund.refunded_micros += micros
    account.charge_refunds[charge.seq] = refund
    posting.touch_charge_refund(refund)
    outcome = Refunded(account.balance(), entry, micros, refund.refunded_micros)
    posting.claim(key, account.account_id, Receipt(request, outcome.answer()), entry)
    return outcome


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

    Debt that a grant has repaid since cannot be forgiven again: that part opens a lot of its own.
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
        entries.append(_to_lots(posting, account, parts, owed_micros, of_entry))
    if late and expired_lot_grace is not None:
        entries.append(_to_a_late_lot(posting, account, late, expired_lot_grace, of_entry))
    return entries[0]


def _to_lots(
    posting: Posting,
    account: Account,
    parts: list[Part],
    owed_micros: int,
    of_entry: dict[str, Any],
) -> Entry:
    micros = owed_micros + sum(part for _, part in parts)
    repaid = funds.repay(account, owed_micros)
    account.refunded_micros += micros
    rest = owed_micros - repaid
    new = [Part(account.seq + 1, rest)] if rest else []
    entry = posting.entry(account, EntryKind.REFUND, micros, parts + new, **of_entry)
    lots = {lot.seq: lot for lot in account.lots}
    for lot_seq, part in reversed(parts):
        funds.put_back(posting, account, lots[lot_seq], part, posting.now, entry.reservation_id)
    if rest:
        funds.add_lot(posting, account, _lot_of(entry, rest))
    return entry


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
        lot = _lot_of(entry, rest)
        lot.priority, lot.category = first.priority, first.category
        lot.expire_time = posting.now + grace
        funds.add_lot(posting, account, lot)
    return entry


def _lot_of(entry: Entry, micros: int) -> Lot:
    """A lot that a refund opens."""
    return Lot(
        entry.account_id,
        entry.seq,
        granted_micros=micros,
        available_micros=micros,
        held_micros=0,
        priority=50,
        category=LotCategory.PAID,
        expire_time=None,
        create_time=entry.create_time,
    )


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
