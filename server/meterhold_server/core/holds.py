"""Reserve, Settle, Release and Extend. Refusals are checked in the order of `Reason`."""

from __future__ import annotations

from copy import copy
from typing import Any

from meterhold_server.core import funds, refunds, replay
from meterhold_server.core.accounts import refuse_frozen
from meterhold_server.core.model import (
    Account,
    ClaimKind,
    EntryKind,
    Overage,
    Part,
    Receipt,
    Reservation,
    ReservationState,
)
from meterhold_server.core.operations import Extend, Release, Reserve, Settle
from meterhold_server.core.outcomes import (
    Extended,
    Reason,
    Rejected,
    Released,
    Reserved,
    Settled,
)
from meterhold_server.core.posting import Posting, claim_key
from meterhold_server.core.range import refuse_range

_WRONG_STATE = {
    ReservationState.SETTLED: Reason.RESERVATION_SETTLED,
    ReservationState.RELEASED: Reason.RESERVATION_RELEASED,
    ReservationState.EXPIRED: Reason.RESERVATION_EXPIRED,
}


def insufficient(account: Account | None, required_micros: int) -> Rejected:
    """The refusal for lack of credits, with the numbers a caller needs to do better."""
    return Rejected(
        Reason.INSUFFICIENT_CREDITS,
        {
            "available_micros": account.available_micros if account else 0,
            "required_micros": required_micros,
            "reservable_micros": account.reservable_micros if account else 0,
        },
    )


def reserve(posting: Posting, account: Account | None, operation: Reserve) -> Reserved | Rejected:
    request = replay.reserve_request(operation)
    used = _find(account, operation.reservation_id)
    if used:
        return replay.mismatch(request, used.opening) or Reserved.again(used.opening)
    if refusal := refuse_frozen(account):
        return refusal
    least = operation.min_amount_micros or operation.amount_micros
    required = max(least, operation.min_available_micros)
    if account is None or account.reservable_micros < required:
        return insufficient(account, required)
    held = min(operation.amount_micros, account.reservable_micros)
    if refusal := refuse_range(account, charged_micros=held):
        return refusal
    # Nothing can fail from here on.
    ttl = operation.ttl or posting.rules.ttl_default
    expire_time = posting.now + ttl
    parts, on_credit = funds.hold(posting, account, held)
    funds.expect_expiry(account, expire_time)
    outcome = Reserved(account.balance(), held, expire_time)
    reservation = Reservation(
        account.account_id,
        operation.reservation_id,
        ReservationState.ACTIVE,
        reserved_micros=held,
        open_micros=held,
        parts=parts,
        on_credit_micros=on_credit,
        on_expiry=operation.on_expiry,
        ttl=ttl,
        expire_time=expire_time,
        create_time=posting.now,
        opening=Receipt(request, outcome.answer()),
        labels=operation.labels,
        metadata=operation.metadata,
    )
    account.reservations[operation.reservation_id] = reservation
    posting.touch(account)
    posting.touch_reservation(reservation)
    return outcome


def settle(posting: Posting, account: Account | None, operation: Settle) -> Settled | Rejected:
    reservation = _find(account, operation.reservation_id)
    if account is None or reservation is None:
        return _not_found(operation.reservation_id)
    request = replay.settle_request(operation)
    key, receipt = None, reservation.closing
    if operation.keep_open:
        key = claim_key(ClaimKind.CAPTURE, operation, operation.step_key)
        used = posting.state.claims.get(key)
        receipt = used.receipt if used else None
    if receipt:
        return replay.mismatch(request, receipt) or Settled.again(receipt)
    if not refunds.takes_settles(reservation, posting):
        return _wrong_state(reservation)
    from_hold = min(operation.amount_micros, reservation.open_micros)
    overage, shortfall = operation.amount_micros - from_hold, 0
    if overage > account.spendable_micros and operation.overage is not Overage.OVERDRAFT:
        if operation.overage is Overage.REJECT:
            return insufficient(account, overage)
        overage, shortfall = account.spendable_micros, overage - account.spendable_micros
    returned = 0 if operation.keep_open else reservation.open_micros - from_hold
    refunded = 0 if reservation.active else returned
    if refusal := refuse_range(account, charged_micros=overage, returned_micros=refunded):
        return refusal
    # Nothing can fail from here on.
    entry_seq = _charge(posting, account, reservation, operation, from_hold, overage)
    if returned:
        _return_rest(posting, account, reservation)
    late = not reservation.active
    outcome = Settled(
        account.balance(),
        charged_micros=from_hold + overage,
        from_hold_micros=from_hold,
        overage_micros=overage,
        shortfall_micros=shortfall,
        released_micros=returned,
        late=late,
        entry_seq=entry_seq,
    )
    answered = Receipt(request, outcome.answer())
    if key:
        posting.claim(key, account.account_id, answered, account.charges.get(entry_seq))
    else:
        reservation.late = late
        reservation.closing = answered
        _end(posting, reservation, ReservationState.SETTLED)
    posting.touch(account)
    posting.touch_reservation(reservation)
    return outcome


def release(posting: Posting, account: Account | None, operation: Release) -> Released | Rejected:
    reservation = _find(account, operation.reservation_id)
    if account is None or reservation is None:
        return _not_found(operation.reservation_id)
    changed = reservation.active
    if changed:
        if reservation.open_micros:
            _return_rest(posting, account, reservation)
        _end(posting, reservation, ReservationState.RELEASED)
        posting.touch(account)
        posting.touch_reservation(reservation)
    return Released(account.balance(), changed, copy(reservation))


def extend(posting: Posting, account: Account | None, operation: Extend) -> Extended | Rejected:
    reservation = _find(account, operation.reservation_id)
    if account is None or reservation is None:
        return _not_found(operation.reservation_id)
    request = replay.extend_request(operation)
    key = claim_key(ClaimKind.EXTEND, operation, operation.step_key)
    used = posting.state.claims.get(key) if operation.extend_id else None
    if used:
        return replay.mismatch(request, used.receipt) or Extended.again(used.receipt)
    if not reservation.active:
        return _wrong_state(reservation)
    growth = operation.add_amount_micros
    if growth and (refusal := refuse_frozen(account)):
        return refusal
    if growth > account.reservable_micros:
        return insufficient(account, growth)
    if refusal := refuse_range(account, charged_micros=growth):
        return refusal
    # Nothing can fail from here on.
    if growth:
        funds.grow(posting, account, reservation, growth)
    if operation.ttl is not None:
        reservation.expire_time = max(reservation.expire_time, posting.now + operation.ttl)
    reservation.on_expiry = operation.on_expiry or reservation.on_expiry
    outcome = Extended(
        account.balance(), reservation.open_micros, reservation.expire_time, reservation.on_expiry
    )
    if operation.extend_id:
        posting.claim(key, account.account_id, Receipt(request, outcome.answer()), None)
    posting.touch(account)
    posting.touch_reservation(reservation)
    return outcome


def _find(account: Account | None, reservation_id: str) -> Reservation | None:
    return account.reservations.get(reservation_id) if account else None


def _charge(
    posting: Posting,
    account: Account,
    reservation: Reservation,
    operation: Settle,
    from_hold_micros: int,
    overage_micros: int,
) -> int:
    """Take the charge and record what of it is new: all, but for what an expiry charged before."""
    parts, on_credit = funds.detach(reservation, from_hold_micros)
    charged, new_parts = overage_micros, list[Part]()
    if reservation.active:
        charged += from_hold_micros
        new_parts = funds.charge_hold(posting, account, parts, on_credit)
        reservation.from_hold_micros += from_hold_micros
    reservation.captured_micros += charged
    if charged == 0:
        return 0
    new_parts += funds.charge(posting, account, overage_micros)
    account.spent_micros += charged
    return posting.entry(
        account,
        EntryKind.CAPTURE,
        -charged,
        new_parts,
        reservation_id=reservation.reservation_id,
        key=operation.capture_id,
        labels=operation.labels,
        usage=operation.usage,
        metadata=operation.metadata,
    ).seq


def _return_rest(posting: Posting, account: Account, reservation: Reservation) -> None:
    """Give back what is open: free it if it is held, refund it if the expiry has charged it."""
    micros = reservation.open_micros
    parts, on_credit = funds.detach(reservation, micros)
    reservation.released_micros += micros
    if reservation.active:
        funds.free_hold(posting, account, parts, on_credit, posting.now, reservation.reservation_id)
        return
    reservation.expiry_charged_micros -= micros
    refunds.record(posting, account, reservation.expiry_charge_seq, micros)
    refunds.give_back(
        posting,
        account,
        parts,
        on_credit,
        reservation_id=reservation.reservation_id,
        related_seq=reservation.expiry_charge_seq,
        labels=reservation.labels,
    )


def _end(posting: Posting, reservation: Reservation, state: ReservationState) -> None:
    reservation.state = state
    reservation.end_time = posting.now


def _not_found(reservation_id: str) -> Rejected:
    return Rejected(Reason.RESERVATION_NOT_FOUND, {"reservation_id": reservation_id})


def _wrong_state(reservation: Reservation) -> Rejected:
    assert reservation.end_time is not None, "only an active reservation has not ended"
    details: dict[str, Any] = {
        "reservation_id": reservation.reservation_id,
        "end_time": reservation.end_time,
    }
    return Rejected(_WRONG_STATE[reservation.state], details)
