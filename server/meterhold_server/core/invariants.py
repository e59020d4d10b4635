"""What must hold of every account at every commit, as one checkable function.

The identities are those of docs/semantics.md. The same facts stand as CHECK constraints on the
tables, as far as one row can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from meterhold_server.core.landing import coming_micros
from meterhold_server.core.model import (
    Account,
    Entry,
    EntryKind,
    PendingState,
    Reservation,
    ReservationState,
)

_SIGN = {
    EntryKind.GRANT: 1,
    EntryKind.REFUND: 1,
    EntryKind.DEBIT: -1,
    EntryKind.CAPTURE: -1,
    EntryKind.EXPIRY_CHARGE: -1,
    EntryKind.EXPIRY: -1,
    EntryKind.ALLOWANCE: 1,
    EntryKind.REVOCATION: -1,
    EntryKind.REINSTATEMENT: 1,
}
_TOTALS = {
    "granted_micros": (EntryKind.GRANT, EntryKind.ALLOWANCE),
    "spent_micros": (EntryKind.DEBIT, EntryKind.CAPTURE, EntryKind.EXPIRY_CHARGE),
    "expired_micros": (EntryKind.EXPIRY,),
    "refunded_micros": (EntryKind.REFUND,),
    "revoked_micros": (EntryKind.REVOCATION, EntryKind.REINSTATEMENT),
}


def violations(account: Account, entries: Sequence[Entry]) -> list[str]:
    """Everything that is wrong with an account, in plain words; empty if nothing is.

    `account` must have all its lots and reservations, and `entries` its whole ledger by `seq`.
    """
    return [
        f"account {account.key.account!r} ({account.key.unit}): {violation}"
        for violation in _violations(account, entries)
    ]


def _violations(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    yield from _account_violations(account)
    yield from _lot_violations(account)
    for reservation in account.reservations.values():
        yield from _reservation_violations(reservation)
    yield from _entry_violations(account, entries)
    yield from _expiry_violations(account)


def _account_violations(account: Account) -> Iterator[str]:
    active = [r for r in account.reservations.values() if r.active]
    yield from _differ("remaining", account.remaining_micros, "available + held",
                       account.available_micros + account.held_micros)  # fmt: skip
    yield from _differ("lots available", account.lots_available_micros, "sum of lots",
                       sum(lot.available_micros for lot in account.lots))  # fmt: skip
    lots_held = sum(lot.held_micros for lot in account.lots)
    yield from _differ("held", account.held_micros, "held in lots + held on credit",
                       lots_held + account.held_on_credit_micros)  # fmt: skip
    yield from _differ("held", account.held_micros, "open in active reservations",
                       sum(r.open_micros for r in active))  # fmt: skip
    yield from _differ("held on credit", account.held_on_credit_micros, "of active reservations",
                       sum(r.on_credit_micros for r in active))  # fmt: skip
    yield from _differ("pending", account.pending_micros, "sum of pending grants",
                       sum(map(coming_micros, account.pending.values())))  # fmt: skip
    if account.debt_micros and account.lots_available_micros:
        yield f"debt {account.debt_micros} while {account.lots_available_micros} are available"
    for name in ("held_micros", "debt_micros", "held_on_credit_micros", *_TOTALS):
        if getattr(account, name) < 0:
            yield f"{name} is negative: {getattr(account, name)}"


def _lot_violations(account: Account) -> Iterator[str]:
    held = dict.fromkeys((lot.seq for lot in account.lots), 0)
    for reservation in account.reservations.values():
        for lot_seq, part in reservation.parts if reservation.active else ():
            held[lot_seq] = held.get(lot_seq, 0) + part
    for lot in account.lots:
        if lot.available_micros < 0 or lot.held_micros < 0:
            yield f"lot {lot.seq} is negative"
        lost = lot.expired_micros + lot.revoked_here_micros
        if lot.available_micros + lot.held_micros + lost > lot.granted_micros:
            yield f"lot {lot.seq} has more than was granted"
        if lot.expired_micros + lot.revoked_micros > lot.granted_micros:
            yield f"lot {lot.seq} has lost more than was granted"
        taken = sum(taken for _, taken in (lot.revocations or {}).values())
        yield from _differ(f"lot {lot.seq} revoked", lot.revoked_micros, "by its revocations",
                           taken)  # fmt: skip
        yield from _differ(f"lot {lot.seq} held", lot.held_micros, "earmarked by reservations",
                           held.pop(lot.seq))  # fmt: skip
    if held:
        yield f"reservations hold in lots that do not exist: {sorted(held)}"


def _reservation_violations(reservation: Reservation) -> Iterator[str]:
    name = f"reservation {reservation.reservation_id!r}"
    parts = sum(part for _, part in reservation.parts)
    yield from _differ(f"{name} open", reservation.open_micros, "its parts",
                       parts + reservation.on_credit_micros)  # fmt: skip
    held = reservation.open_micros if reservation.active else 0
    yield from _differ(
        f"{name} reserved", reservation.reserved_micros,
        "held + captured from it + released + charged at expiry",
        held + reservation.from_hold_micros + reservation.released_micros
        + reservation.expiry_charged_micros,
    )  # fmt: skip
    if reservation.active == (reservation.end_time is not None):
        yield f"{name} is {reservation.state} with end time {reservation.end_time}"
    if (reservation.state is ReservationState.SETTLED) != (reservation.closing is not None):
        yield f"{name} is {reservation.state} with closing {reservation.closing}"


def _entry_violations(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    balance = 0
    sums = dict.fromkeys(EntryKind, 0)
    for position, entry in enumerate(entries, start=1):
        if entry.seq != position:
            yield f"entry {entry.seq} stands at position {position}"
            return
        if entry.amount_micros * _SIGN[entry.kind] <= 0:
            yield f"entry {entry.seq} is a {entry.kind} of {entry.amount_micros}"
        balance += entry.amount_micros
        sums[entry.kind] += entry.amount_micros
        yield from _differ(f"entry {entry.seq} remaining after", entry.remaining_after_micros,
                           "sum of entries up to it", balance)  # fmt: skip
    yield from _differ("seq", account.seq, "number of entries", len(entries))
    yield from _differ("remaining", account.remaining_micros, "sum of entries", balance)
    for name, kinds in _TOTALS.items():
        of_entries = sum(sums[kind] for kind in kinds)
        yield from _differ(name, getattr(account, name), "sum of its entries",
                           of_entries * _SIGN[kinds[0]])  # fmt: skip
    yield from _refund_violations(account, entries)
    yield from _source_violations(account.reservations.values(), entries)


def _refund_violations(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    """Of each charge what its refunds gave back is known, and no more than was charged."""
    refunded: dict[int, int] = {}
    for entry in entries:
        if entry.kind is not EntryKind.REFUND:
            continue
        seq = entry.related_seq
        refunded[seq] = refunded.get(seq, 0) + entry.amount_micros
    for seq, micros in refunded.items():
        if micros > -entries[seq - 1].amount_micros:
            yield f"entry {seq} charged {-entries[seq - 1].amount_micros}, {micros} were given back"
    for seq in sorted(refunded.keys() | account.charge_refunds.keys()):
        known = account.charge_refunds.get(seq)
        yield from _differ(f"refunded of entry {seq}", known.refunded_micros if known else 0,
                           "sum of its refunds", refunded.get(seq, 0))  # fmt: skip


def _source_violations(
    reservations: Iterable[Reservation], entries: Sequence[Entry]
) -> Iterator[str]:
    """Each reservation is charged by its own entries and by no others.

    A late settle gives back without a key. What RefundCharge gives back stays charged.
    """
    charged: dict[str, int] = {}
    for entry in entries:
        if entry.kind is EntryKind.REFUND and entry.key:
            continue
        if entry.kind in (EntryKind.CAPTURE, EntryKind.EXPIRY_CHARGE, EntryKind.REFUND):
            charged[entry.reservation_id] = (
                charged.get(entry.reservation_id, 0) - entry.amount_micros
            )
    for reservation in reservations:
        yield from _differ(
            f"reservation {reservation.reservation_id!r} charged",
            reservation.captured_micros + reservation.expiry_charged_micros,
            "sum of its entries", charged.pop(reservation.reservation_id, 0),
        )  # fmt: skip
    if charged:
        yield f"entries charge reservations that do not exist: {sorted(charged)}"


def _expiry_violations(account: Account) -> Iterator[str]:
    times = [lot.expire_time for lot in account.lots if lot.available_micros and lot.expire_time]
    times += [r.expire_time for r in account.reservations.values() if r.active]
    times += [p.effective_time for p in account.pending.values() if p.state is PendingState.PENDING]
    if account.allowance and account.allowance.refill_time:
        times.append(account.allowance.refill_time)
    first = min(times, default=None)
    if first and (account.next_expire_time is None or account.next_expire_time > first):
        yield f"next expiry {account.next_expire_time} is later than {first}"


def _differ(name: str, value: int, other_name: str, other: int) -> Iterator[str]:
    if value != other:
        yield f"{name} {value} ≠ {other_name} {other}"
