"""The callers' books against the ledger: every call done once or not at all, to the micro."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import meterhold
from meterhold import (
    Balance,
    DebitResult,
    Entry,
    EntryKind,
    ExtendResult,
    GrantResult,
    Rejected,
    Reservation,
    ReservationState,
    ReserveResult,
    SettleResult,
)
from robustness.callers import Call


class Account(NamedTuple):
    """All that the server says of an account."""

    balance: Balance
    entries: dict[int, Entry]
    """By `seq`."""
    reservations: dict[str, Reservation]


class Wrong(NamedTuple):
    """Where books and ledger differ, and what the requests concerned carry."""

    account: str
    name: str
    what: str


async def read_account(client: meterhold.AsyncClient, account: str) -> Account:
    entries = [entry async for entry in client.list_entries(account, page_size=1000)]
    reservations = [held async for held in client.list_reservations(account, page_size=1000)]
    return Account(
        await client.balance(account),
        {entry.seq: entry for entry in entries},
        {held.reservation_id: held for held in reservations},
    )


@dataclass
class _Job:
    """What the calls on one hold, taken together, must have made of it."""

    reserved_micros: int = 0
    captured_micros: int = 0
    from_hold_micros: int = 0
    end: ReservationState = ReservationState.ACTIVE

    @property
    def held_micros(self) -> int:
        active = self.end is ReservationState.ACTIVE
        return self.reserved_micros - self.from_hold_micros if active else 0


@dataclass
class Book:
    """The calls on one account, none of them unknown any more, and what they add up to."""

    name: str
    account: Account
    wrong: list[Wrong] = field(default_factory=list)
    _authors: dict[int, Call] = field(default_factory=dict)
    _jobs: dict[str, _Job] = field(default_factory=lambda: defaultdict(_Job))

    def check(self, calls: Iterable[Call]) -> list[Wrong]:
        """Compare. Answers every difference."""
        for call in calls:
            if call.told == "yes":
                self.wrong += [Wrong(self.name, call.name, what) for what in self._enter(call)]
            elif call.repeats is not None and isinstance(call.answer, Rejected):
                self._differs(call.name, f"was done, and then refused: {call.answer!r}")
        for seq in self.account.entries.keys() - self._authors.keys():
            entry = self.account.entries[seq]
            self._differs(entry.key or entry.reservation_id, f"nobody was told of {entry}")
        for reservation_id in self.account.reservations.keys() | self._jobs.keys():
            self._compare_job(reservation_id)
        self._compare_balance()
        return self.wrong

    def _enter(self, call: Call) -> Iterator[str]:
        """Write down a call that was done. Yields what is wrong with its answer alone."""
        match call.answer:
            case DebitResult() | GrantResult() as made:
                assert made.entry, "no grant of the load is pending"
                yield from self._claim(call, made.entry)
                yield from self._was(made.balance)
            case SettleResult() as settled:
                yield from self._enter_charge(call, settled)
                yield from self._was(settled.balance)
            case ReserveResult() as held:
                self._jobs[call.reservation_id].reserved_micros = held.held_micros
                yield from self._was(held.balance)
            case ExtendResult() as extended:
                growth = call.arguments.get("add_amount_micros", 0)
                self._jobs[call.reservation_id].reserved_micros += growth
                yield from self._was(extended.balance)
            case meterhold.ReleaseResult() as released:
                self._end(call.reservation_id, released.reservation.state)
                yield from self._was(released.balance)
            case Balance() as balance:
                yield from self._was(balance)
            case Entry() as entry:
                yield from self._is_in_ledger(entry)
            case [Entry(), *_] as entries:
                for entry in entries:
                    yield from self._is_in_ledger(entry)

    def _enter_charge(self, call: Call, settled: SettleResult) -> Iterator[str]:
        job = self._jobs[call.reservation_id]
        if call.repeats is None:
            job.captured_micros += settled.charged_micros
            job.from_hold_micros += settled.from_hold_micros
        if not call.arguments.get("keep_open"):
            self._end(call.reservation_id, ReservationState.SETTLED)
        if settled.charged_micros + settled.shortfall_micros != call.arguments["amount_micros"]:
            yield f"of the amount asked for, {settled} leaves a part out"
        if settled.charged_micros == 0:
            return
        entry = self.account.entries.get(settled.entry_seq)
        if entry is None:
            yield f"charged by an entry that is not there: {settled}"
            return
        yield from self._claim(call, entry)
        if (entry.kind, entry.amount_micros) != (EntryKind.CAPTURE, -settled.charged_micros):
            yield f"was told {settled}, and the ledger says {entry}"

    def _claim(self, call: Call, entry: Entry) -> Iterator[str]:
        """The entry is this call's, as it was told, and no other call's."""
        yield from self._is_in_ledger(entry)
        author = self._authors.setdefault(entry.seq, call)
        if author is not (call.repeats or call):
            yield f"has the same {entry} as {author}"
        key = call.arguments.get("idempotency_key") or call.arguments.get("request_id")
        key = key or call.arguments.get("capture_id") or entry.key
        if (entry.key, entry.reservation_id) != (key, call.reservation_id):
            yield f"has an entry of another name: {entry}"
        if call.method != "settle" and abs(entry.amount_micros) != call.arguments["amount_micros"]:
            yield f"asked for another amount than that of {entry}"

    def _is_in_ledger(self, entry: Entry) -> Iterator[str]:
        found = self.account.entries.get(entry.seq)
        if found != entry:
            yield f"was told of {entry}, and the ledger says {found}"

    def _was(self, balance: Balance) -> Iterator[str]:
        """The account did have that balance, at the entry that it names."""
        entry = self.account.entries.get(balance.ledger_seq)
        remaining = entry.remaining_after_micros if entry else 0
        if remaining != balance.remaining_micros:
            yield f"was told a balance that never was: {balance}; {remaining} remained then"
        if balance.remaining_micros != balance.available_micros + balance.held_micros:
            yield f"was told a balance that does not add up: {balance}"

    def _end(self, reservation_id: str, state: ReservationState) -> None:
        job = self._jobs[reservation_id]
        if job.end not in (ReservationState.ACTIVE, state):
            self._differs(reservation_id, f"ended as {job.end} and as {state}")
        job.end = state

    def _compare_job(self, reservation_id: str) -> None:
        job, found = self._jobs.get(reservation_id), self.account.reservations.get(reservation_id)
        if job is None or found is None:
            self._differs(reservation_id, f"callers know {job}, the server {found}")
            return
        told = (job.reserved_micros, job.captured_micros, job.held_micros, job.end)
        if told != (found.reserved_micros, found.captured_micros, found.held_micros, found.state):
            self._differs(reservation_id, f"callers know {job}, the server {found}")

    def _compare_balance(self) -> None:
        amounts = [self.account.entries[seq].amount_micros for seq in self._authors]
        granted = sum(amount for amount in amounts if amount > 0)
        held = sum(job.held_micros for job in self._jobs.values())
        told = (granted, granted - sum(amounts), held, sum(amounts) - held)
        balance = self.account.balance
        found = (balance.granted_micros, balance.spent_micros, balance.held_micros)
        if told != (*found, balance.available_micros):
            self._differs("", f"callers' books add up to {told}, the server says {balance}")

    def _differs(self, name: str, what: str) -> None:
        self.wrong.append(Wrong(self.name, name, what))
