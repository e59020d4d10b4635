"""Moving credits between lots, holds and debt. The arithmetic that every step is made of.

None of these functions can refuse: their callers have checked. Each keeps the identities of
`invariants` by itself, except for the lifetime totals, which the caller changes with the entry.
"""

from __future__ import annotations

from bisect import insort
from datetime import UTC, datetime
from typing import Any

from meterhold_server.core.model import (
    Account,
    Entry,
    EntryKind,
    Lot,
    LotCategory,
    Part,
    Reservation,
)
from meterhold_server.core.posting import Posting

_NEVER = datetime.max.replace(tzinfo=UTC)


def spend_key(lot: Lot) -> tuple[int, datetime, bool, int]:
    """Spend order: priority, then earliest expiry, then promotional before paid, then oldest."""
    return (
        lot.priority,
        lot.expire_time or _NEVER,
        lot.category is not LotCategory.PROMOTIONAL,
        lot.seq,
    )


def add_lot(posting: Posting, account: Account, lot: Lot) -> None:
    """Open a lot that nothing has been taken from yet."""
    insort(account.lots, lot, key=spend_key)
    account.lots_available_micros += lot.available_micros
    if lot.available_micros and lot.expire_time is not None:
        expect_expiry(account, lot.expire_time)
    posting.touch_lot(lot)


def expect_expiry(account: Account, at: datetime) -> None:
    """Remember that something of the account expires at `at`."""
    if account.next_expire_time is None or at < account.next_expire_time:
        account.next_expire_time = at


def take(posting: Posting, account: Account, micros: int) -> list[Part]:
    """Take up to `micros` out of the available lots, in spend order."""
    parts: list[Part] = []
    left = min(micros, account.lots_available_micros)
    account.lots_available_micros -= left
    for lot in account.lots:
        if left == 0:
            break
        if lot.available_micros:
            taken = min(left, lot.available_micros)
            lot.available_micros -= taken
            left -= taken
            posting.touch_lot(lot)
            parts.append(Part(lot.seq, taken))
    assert left == 0, "the account's total is the sum of its lots"
    return parts


def charge(posting: Posting, account: Account, micros: int) -> list[Part]:
    """Take `micros` from the lots and owe what they do not cover."""
    covered = min(micros, account.lots_available_micros)
    account.debt_micros += micros - covered
    return take(posting, account, covered)


def hold(posting: Posting, account: Account, micros: int) -> tuple[list[Part], int]:
    """Earmark `micros` in lots, in spend order. Answers the parts, and what is held on credit."""
    parts = take(posting, account, micros)
    lots = _lots(account)
    for lot_seq, part in parts:
        lots[lot_seq].held_micros += part
    on_credit = micros - sum(part for _, part in parts)
    account.held_micros += micros
    account.held_on_credit_micros += on_credit
    return parts, on_credit


def grow(posting: Posting, account: Account, reservation: Reservation, micros: int) -> None:
    """Earmark `micros` more for a running reservation."""
    parts, on_credit = hold(posting, account, micros)
    lots = _lots(account)
    held = dict(reservation.parts)
    for lot_seq, part in parts:
        held[lot_seq] = held.get(lot_seq, 0) + part
    in_spend_order = sorted(held, key=lambda lot_seq: spend_key(lots[lot_seq]))
    reservation.parts = [Part(lot_seq, held[lot_seq]) for lot_seq in in_spend_order]
    reservation.on_credit_micros += on_credit
    reservation.open_micros += micros
    reservation.reserved_micros += micros


def detach(reservation: Reservation, micros: int) -> tuple[list[Part], int]:
    """Cut `micros` off what is open, lots first. Answers the parts and what was on credit."""
    parts: list[Part] = []
    rest: list[Part] = []
    left = micros
    for lot_seq, part in reservation.parts:
        cut = min(left, part)
        left -= cut
        if cut:
            parts.append(Part(lot_seq, cut))
        if part > cut:
            rest.append(Part(lot_seq, part - cut))
    assert left <= reservation.on_credit_micros, "more was asked than is open"
    reservation.parts = rest
    reservation.on_credit_micros -= left
    reservation.open_micros -= micros
    return parts, left


def charge_hold(
    posting: Posting, account: Account, parts: list[Part], on_credit_micros: int
) -> list[Part]:
    """Charge what was held: the lots' parts are gone, the part on credit is paid or owed now."""
    lots = _lots(account)
    for lot_seq, part in parts:
        lot = lots[lot_seq]
        lot.held_micros -= part
        posting.touch_lot(lot)
        account.held_micros -= part
    account.held_micros -= on_credit_micros
    account.held_on_credit_micros -= on_credit_micros
    return parts + charge(posting, account, on_credit_micros)


def free_hold(
    posting: Posting,
    account: Account,
    parts: list[Part],
    on_credit_micros: int,
    at: datetime,
    reservation_id: str,
) -> None:
    """Let go of what was held: it returns to its lots, and expires in those expired by `at`."""
    account.held_micros -= on_credit_micros
    account.held_on_credit_micros -= on_credit_micros
    lots = _lots(account)
    for lot_seq, part in parts:
        lot = lots[lot_seq]
        lot.held_micros -= part
        account.held_micros -= part
        put_back(posting, account, lot, part, at, reservation_id)
    posting.touch(account)


def put_back(
    posting: Posting, account: Account, lot: Lot, micros: int, at: datetime, reservation_id: str
) -> None:
    """Return `micros` to a lot. They expire at once if the lot has; else they repay debt first."""
    posting.touch_lot(lot)
    if lot.expired(at):
        write_off(posting, account, lot, micros, reservation_id)
        return
    repaid = repay(account, micros)
    lot.repaid_micros += repaid
    lot.available_micros += micros - repaid
    account.lots_available_micros += micros - repaid
    if lot.available_micros and lot.expire_time is not None:
        expect_expiry(account, lot.expire_time)


def repay(account: Account, micros: int) -> int:
    """Pay off debt with up to `micros`. Answers how much it took."""
    repaid = min(micros, account.debt_micros)
    account.debt_micros -= repaid
    return repaid


def restore(
    posting: Posting,
    account: Account,
    kind: EntryKind,
    parts: list[Part],
    owed_micros: int,
    **of_entry: Any,
) -> Entry:
    """Give back by a REFUND or a REINSTATEMENT: what was owed, then to lots, last taken first.

    Debt that a grant has repaid since cannot be forgiven again: that part opens a lot of its own.
    """
    micros = owed_micros + sum(part for _, part in parts)
    rest = owed_micros - repay(account, owed_micros)
    if kind is EntryKind.REFUND:
        account.refunded_micros += micros
    else:
        account.revoked_micros -= micros
    new = [Part(account.seq + 1, rest)] if rest else []
    entry = posting.entry(account, kind, micros, parts + new, **of_entry)
    lots = _lots(account)
    for lot_seq, part in reversed(parts):
        put_back(posting, account, lots[lot_seq], part, posting.now, entry.reservation_id)
    if rest:
        add_lot(posting, account, returned_lot(entry, rest))
    return entry


def returned_lot(entry: Entry, micros: int) -> Lot:
    """A lot that an entry opens for credits whose own lot is not known."""
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


def write_off(
    posting: Posting, account: Account, lot: Lot, micros: int, reservation_id: str = ""
) -> None:
    """Record that `micros` of a lot, no longer counted in it, are lost to its expiry.

    What has expired cannot have been revoked as well: a revocation that had to be paid from
    elsewhere, while these were held or spent, is undone by as much.
    """
    account.expired_micros += micros
    lot.expired_micros += micros
    posting.touch_lot(lot)
    posting.entry(
        account,
        EntryKind.EXPIRY,
        -micros,
        [Part(lot.seq, micros)],
        reservation_id=reservation_id,
        related_seq=lot.seq,
    )
    too_much = lot.expired_micros + lot.revoked_micros - lot.granted_micros
    if too_much > 0:
        lot.revoked_micros -= too_much
        _forget_revoked(lot, too_much)
        restore(posting, account, EntryKind.REINSTATEMENT, [], too_much, related_seq=lot.seq)


def _forget_revoked(lot: Lot, micros: int) -> None:
    """Count `micros` less as taken, by whichever revocations took them.

    In the order of their ids, which is the same whether or not they have been stored meanwhile.
    """
    left = micros
    for _, taken in sorted((lot.revocations or {}).items()):
        less = min(left, taken[1])
        taken[1] -= less
        left -= less


def _lots(account: Account) -> dict[int, Lot]:
    return {lot.seq: lot for lot in account.lots}
