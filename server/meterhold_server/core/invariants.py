"""What must hold of every account at every commit, as one checkable function.

The identities are those of docs/semantics.md. `storage.checks` says the same set-wise in SQL, and
the two are tested against each other. CHECK constraints on the tables say it as far as one row can
tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from meterhold_server.core.clawback import coming_micros
from meterhold_server.core.counting import (
    Total,
    charges_hold,
    contradiction,
    corrected_seq,
    counted_beside,
    counted_kind,
    not_spent,
)
from meterhold_server.core.differences import Difference, unequal
from meterhold_server.core.model import (
    Account,
    Entry,
    EntryKind,
    PendingState,
    Reservation,
    ReservationState,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def violations(account: Account, entries: Sequence[Entry]) -> list[str]:
    """Everything that is wrong with an account, in plain words; empty if nothing is.

    `account` must have all its lots and reservations, and `entries` its whole ledger by `seq`.
    """
    return [
        f"account {account.key.account!r} ({account.key.unit}): {difference.sentence}"
        for difference in differences(account, entries)
    ]


def differences(account: Account, entries: Sequence[Entry]) -> list[Difference]:
    """Everything that is not as it must be, of an account and its whole ledger by `seq`."""
    found = [*_account_differences(account), *_lot_differences(account, entries)]
    for reservation in account.reservations.values():
        found += _reservation_differences(reservation)
    found += _entry_differences(account, entries)
    found += _charge_differences(account, entries)
    found += _refund_differences(account, entries)
    found += _expiry_differences(account)
    return found


def _account_differences(account: Account) -> Iterator[Difference]:
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
        sentence = f"debt {account.debt_micros} while {account.lots_available_micros} are available"
        yield Difference("debt", account.debt_micros, 0, sentence)
    names = ("held", "debt", "held_on_credit", *_TOTALS)
    yield from _not_negative("", ((f"{name}_micros", _micros(account, name)) for name in names))


def _lot_differences(account: Account, entries: Sequence[Entry]) -> Iterator[Difference]:
    held = _earmarked(account)
    parts = _parts(entries)
    expired = _per_seq(entries, Total.EXPIRED, EntryKind.EXPIRY)
    revoked = _per_seq(entries, Total.REVOKED, EntryKind.REVOCATION, EntryKind.REINSTATEMENT)
    for lot in account.lots:
        name = f"lot {lot.seq}"
        amounts = ("available", "held", "expired", "repaid", "revoked", "revoked_here")
        yield from _not_negative(f"{name} ", ((each, _micros(lot, each)) for each in amounts))
        left = lot.available_micros + lot.held_micros
        gone = lot.expired_micros + lot.revoked_here_micros
        if left + gone > lot.granted_micros or (
            lot.revoked_micros + lot.expired_micros > lot.granted_micros
        ):
            yield Difference(name, left, lot.granted_micros, f"{name} has more than was granted")
        if lot.revoked_here_micros > lot.revoked_micros:
            what = f"{name} revoked here"
            sentence = f"{what} {lot.revoked_here_micros} is more than all of {lot.revoked_micros}"
            yield Difference(what, lot.revoked_here_micros, lot.revoked_micros, sentence)
        yield from _differ(f"{name} held", lot.held_micros, "earmarked by reservations",
                           held.pop(lot.seq, 0))  # fmt: skip
        yield from _differ(f"{name} available + held + repaid", left + lot.repaid_micros,
                           "its parts of entries", parts.pop(lot.seq, 0))  # fmt: skip
        yield from _differ(f"{name} expired", lot.expired_micros, "its EXPIRY entries",
                           expired.get(lot.seq, 0))  # fmt: skip
        yield from _differ(f"{name} revoked", lot.revoked_micros, "its REVOCATION entries",
                           revoked.get(lot.seq, 0))  # fmt: skip
        taken = sum(taken for _, taken in (lot.revocations or {}).values())
        yield from _differ(f"{name} revoked", lot.revoked_micros, "its revocations", taken)
    for lot_seq, micros in sorted(held.items()):
        sentence = f"reservations hold {micros} in lot {lot_seq}, which does not exist"
        yield Difference(f"lot {lot_seq} held", 0, micros, sentence)
    for lot_seq, micros in sorted(parts.items()):
        if micros:
            sentence = f"entries say {micros} of lot {lot_seq}, which does not exist"
            yield Difference(f"lot {lot_seq}", 0, micros, sentence)


def _per_seq(entries: Iterable[Entry], total: Total, *kinds: EntryKind) -> dict[int, int]:
    """By charge or lot, what entries of the kinds say, and corrections beside them."""
    sums: dict[int, int] = {}
    for entry in entries:
        seq, micros = entry.related_seq, abs(entry.amount_micros)
        if beside := counted_beside(entry, total):
            seq, micros = beside.seq, beside.micros
        elif entry.kind is EntryKind.CORRECTION or counted_kind(entry) not in kinds or not seq:
            continue
        sign = -1 if entry.kind is EntryKind.REINSTATEMENT else 1
        sums[seq] = sums.get(seq, 0) + sign * micros
    return sums


def _earmarked(account: Account) -> dict[int, int]:
    """What active reservations hold of each lot."""
    held: dict[int, int] = {}
    for reservation in account.reservations.values():
        for lot_seq, part in reservation.parts if reservation.active else ():
            held[lot_seq] = held.get(lot_seq, 0) + part
    return held


def _parts(entries: Iterable[Entry]) -> dict[int, int]:
    """By lot: what entries gave to it less what they took."""
    parts: dict[int, int] = {}
    for entry in entries:
        sign = (entry.amount_micros > 0) - (entry.amount_micros < 0)
        for lot_seq, part in entry.parts:
            parts[lot_seq] = parts.get(lot_seq, 0) + sign * part
    return parts


def _reservation_differences(reservation: Reservation) -> Iterator[Difference]:
    name = f"reservation {reservation.reservation_id!r}"
    parts = sum(part for _, part in reservation.parts)
    amounts = ("open", "on_credit", "captured", "from_hold", "released", "expiry_charged")
    yield from _not_negative(f"{name} ", ((each, _micros(reservation, each)) for each in amounts))
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
        sentence = f"{name} is {reservation.state} with end time {reservation.end_time}"
        yield Difference(f"{name} end time", 0, 0, sentence)
    if (reservation.state is ReservationState.SETTLED) != (reservation.closing is not None):
        sentence = f"{name} is {reservation.state} with closing {reservation.closing}"
        yield Difference(f"{name} closing", 0, 0, sentence)


def _entry_differences(account: Account, entries: Sequence[Entry]) -> Iterator[Difference]:
    numbers = [entry.seq for entry in entries]
    yield from _differ("seq", account.seq, "number of entries", len(entries))
    if numbers != list(range(1, len(entries) + 1)):
        position = next(at for at, seq in enumerate(numbers, start=1) if at != seq)
        sentence = f"entry {numbers[position - 1]} stands at position {position}"
        yield Difference("entries", numbers[position - 1], position, sentence)
        return
    explained = set(map(corrected_seq, entries))
    for entry in entries:
        sentence = contradiction(entry)
        if sentence and entry.seq not in explained:
            yield Difference(f"entry {entry.seq}", entry.amount_micros, 0, sentence)
    yield from _chain_differences(entries)
    total = sum(entry.amount_micros for entry in entries)
    yield from _differ("remaining", account.remaining_micros, "sum of entries", total)
    beside = not_spent(entries)
    for name, counts in _TOTALS.items():
        micros = sum(abs(entry.amount_micros) * counts(entry) for entry in entries)
        more = -sum(beside.values()) if name == "spent" else beside.get(name, 0)
        yield from _differ(f"{name}_micros", _micros(account, name), "sum of its entries",
                           micros + more)  # fmt: skip


def _chain_differences(entries: Sequence[Entry]) -> Iterator[Difference]:
    """A CORRECTION of another entry counts in the place of that one."""
    changes = [0] * (len(entries) + 1)
    for entry in entries:
        changes[corrected_seq(entry) or entry.seq] += entry.amount_micros
    balance = 0
    for entry in entries:
        balance += changes[entry.seq]
        yield from _differ(f"entry {entry.seq} remaining after", entry.remaining_after_micros,
                           "sum of entries up to it", balance)  # fmt: skip


def _charge_differences(account: Account, entries: Sequence[Entry]) -> Iterator[Difference]:
    """Each reservation is charged by its own entries and by no others."""
    charged: dict[str, int] = {}
    for entry in entries:
        if charges_hold(entry):
            beside = counted_beside(entry, Total.CHARGED)
            micros = (beside.micros if beside else 0) - entry.amount_micros
            charged[entry.reservation_id] = charged.get(entry.reservation_id, 0) + micros
    for reservation in account.reservations.values():
        yield from _differ(
            f"reservation {reservation.reservation_id!r} charged",
            reservation.captured_micros + reservation.expiry_charged_micros,
            "sum of its entries", charged.pop(reservation.reservation_id, 0),
        )  # fmt: skip
    for reservation_id, micros in sorted(charged.items()):
        name = f"reservation {reservation_id!r}"
        yield Difference(name, 0, micros, f"entries charge {name}, which does not exist")


def _refund_differences(account: Account, entries: Sequence[Entry]) -> Iterator[Difference]:
    """Of each charge what its refunds gave back is known, and no more than was charged."""
    refunded = _per_seq(entries, Total.REFUNDED, EntryKind.REFUND)
    corrections = [counted_beside(entry, Total.REFUNDED) for entry in entries]
    explained = {beside.seq for beside in corrections if beside}
    charges = _charges(entries)
    for seq, micros in refunded.items():
        charged = charges.get(seq, 0)
        if micros > charged and not (charged == 0 and seq in explained):
            sentence = f"entry {seq} charged {charged}, {micros} were given back"
            yield Difference(f"refunded of entry {seq}", micros, charged, sentence)
    for seq in sorted(refunded.keys() | account.charge_refunds.keys()):
        known = account.charge_refunds.get(seq)
        yield from _differ(f"refunded of entry {seq}", known.refunded_micros if known else 0,
                           "sum of its refunds", refunded.get(seq, 0))  # fmt: skip


def _charges(entries: Iterable[Entry]) -> dict[int, int]:
    """By entry, the most that it charged: by its own amount, or with the corrections of it."""
    charges: dict[int, int] = {}
    corrected: dict[int, int] = {}
    for entry in entries:
        charges[entry.seq] = max(0, -entry.amount_micros)
        if seq := corrected_seq(entry):
            corrected[seq] = corrected.get(seq, 0) - entry.amount_micros
    amounts = {entry.seq: entry.amount_micros for entry in entries if entry.seq in corrected}
    for seq, amount_micros in amounts.items():
        charges[seq] = max(charges[seq], corrected[seq] - amount_micros)
    return charges


def _expiry_differences(account: Account) -> Iterator[Difference]:
    first = first_due(account)
    following = account.next_expire_time
    if first and (following is None or following > first):
        sentence = f"next expiry {following} is later than {first}"
        yield Difference("next expiry", _microseconds(following), _microseconds(first), sentence)


def first_due(account: Account) -> datetime | None:
    """When the first thing is due of an account with all its lots, holds and pending grants."""
    times = [lot.expire_time for lot in account.lots if lot.available_micros and lot.expire_time]
    times += [r.expire_time for r in account.reservations.values() if r.active]
    waiting = [p for p in account.pending.values() if p.state is PendingState.PENDING]
    times += [pending.effective_time for pending in waiting]
    if account.allowance and account.allowance.refill_time:
        times.append(account.allowance.refill_time)
    return min(times, default=None)


def _microseconds(time: datetime | None) -> int:
    return (time - EPOCH) // timedelta(microseconds=1) if time else 0


def _micros(of: object, name: str) -> int:
    micros: int = getattr(of, f"{name}_micros")
    return micros


def _not_negative(prefix: str, amounts: Iterable[tuple[str, int]]) -> Iterator[Difference]:
    for name, micros in amounts:
        if micros < 0:
            what = f"{prefix}{name}"
            yield Difference(what, micros, 0, f"{what} is negative: {micros}")


def _differ(what: str, stored: int, source: str, expected: int) -> Iterator[Difference]:
    if stored != expected:
        yield unequal(what, stored, source, expected)


def _kinds(*kinds: EntryKind, correction: int = 0) -> Callable[[Entry], int]:
    """How an entry counts in a total: corrections of the sign `correction` do too."""

    def counts(entry: Entry) -> int:
        kind = counted_kind(entry)
        if kind is EntryKind.CORRECTION:
            return int(entry.amount_micros * correction > 0)
        return int(kind in kinds)

    return counts


def _revoked(entry: Entry) -> int:
    return {EntryKind.REVOCATION: 1, EntryKind.REINSTATEMENT: -1}.get(counted_kind(entry), 0)


_TOTALS: Final = {
    "granted": _kinds(EntryKind.GRANT, EntryKind.ALLOWANCE, correction=1),
    "spent": _kinds(EntryKind.DEBIT, EntryKind.CAPTURE, EntryKind.EXPIRY_CHARGE, correction=-1),
    "expired": _kinds(EntryKind.EXPIRY),
    "refunded": _kinds(EntryKind.REFUND),
    "revoked": _revoked,
}
"""How the absolute amount of an entry counts in each lifetime total."""
