"""Bugs to plant, one at a time: what the simulation is worth is how many of them it finds.

Each takes the place of a piece of the service, for the length of a run, and leaves the rest as it
is. They are the mistakes that services of this kind have made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from unittest.mock import patch

import psycopg

from core.shelf import Shelf
from meterhold_server.batching import failures, lane, transaction
from meterhold_server.batching.lane import Lane
from meterhold_server.batching.transaction import BatchFault
from meterhold_server.core import chains, charges, decide, expiry, funds, holds, posting, replay
from meterhold_server.core.model import Account, ClaimKind, EntryKind, Reservation, State
from meterhold_server.core.outcomes import Chained, Debited, Rejected
from meterhold_server.core.posting import Posting, Writes
from meterhold_server.prove.history import Call, Method
from meterhold_server.storage import session as session_module
from meterhold_server.storage.errors import Fault
from meterhold_server.storage.session import Session
from meterhold_server.workers.sweeper import Sweeper
from simulation import clients, database
from simulation.database import START
from simulation.process import Process, _Reader
from simulation.run import Bug, Simulation

BUGS: Final[dict[str, Bug]] = {}


def bug(plant: Callable[[Simulation], Iterator[None]]) -> Callable[[Simulation], Iterator[None]]:
    """Enter a bug under its name."""
    BUGS[plant.__name__] = contextmanager(plant)
    return plant


def _instead(*replacements: tuple[Any, str, Any]) -> ExitStack:
    stack = ExitStack()
    for where, name, what in replacements:
        stack.enter_context(patch.object(where, name, what))
    return stack


# Batching: what is told, and when.


@bug
def acknowledged_before_commit(simulation: Simulation) -> Iterator[None]:
    """A lost answer to COMMIT is taken for a success."""

    def recover(self: Lane, fault: BatchFault, attempt: int) -> Any:
        if fault.unresolved is not None and fault.fault is Fault.UNKNOWN:
            self._drop_session()
            return fault.unresolved.outcomes
        return real(self, fault, attempt)

    real = Lane._recover
    with _instead((Lane, "_recover", recover)):
        yield


@bug
def rolled_back_is_acknowledged(simulation: Simulation) -> Iterator[None]:
    """A batch that others made roll back is not decided again."""

    def recover(self: Lane, fault: BatchFault, attempt: int) -> Any:
        if fault.unresolved is not None and fault.fault is Fault.RETRY:
            return fault.unresolved.outcomes
        return real(self, fault, attempt)

    real = Lane._recover
    with _instead((Lane, "_recover", recover)):
        yield


@bug
def lookup_taken_as_proof(simulation: Simulation) -> Iterator[None]:
    """Evidence that is not there yet counts as never to come, while its COMMIT is under way."""

    def committed(self: Session, number: str, evidence: Any) -> bool:
        return evidence is not None and evidence.is_in(self.connection)

    with _instead((Session, "transaction_committed", committed), *_slow_commits(simulation)):
        yield


@bug
def number_taken_as_proof(simulation: Simulation) -> Iterator[None]:
    """The number of a transaction is believed, though a crash has given it to another."""

    def committed(self: Session, number: str, evidence: Any) -> bool | None:
        try:
            row = self.connection.execute(session_module._STATUS, (number,)).fetchone()
        except psycopg.errors.InvalidParameterValue:
            return False
        assert row is not None
        return {"committed": True, "aborted": False}.get(row[0])

    simulation.plan = replace(simulation.plan, crashes=3.0)
    with _instead((Session, "transaction_committed", committed)):
        yield


@bug
def retried_without_asking(simulation: Simulation) -> Iterator[None]:
    """A lost answer to COMMIT counts as one to BEGIN: the batch is done again."""

    def recover(self: Lane, fault: BatchFault, attempt: int) -> Any:
        if fault.fault is Fault.UNKNOWN:
            self._drop_session()
            return None
        return real(self, fault, attempt)

    real = Lane._recover
    with _instead((Lane, "_recover", recover)):
        yield


@bug
def doubt_told_as_certainty(simulation: Simulation) -> Iterator[None]:
    """What could not be found out is told as not done."""

    def unknown() -> failures.Failure:
        return failures.database_unavailable()

    chances = simulation.database.chances
    with _instead(
        (failures, "outcome_unknown", unknown), (chances, "stall", 0.1), (chances, "cut", 0.05)
    ):
        yield


@bug
def late_answers_told_as_not_done(simulation: Simulation) -> Iterator[None]:
    """Whoever comes back too late is told that nothing was begun."""

    def answer(self: Lane, answers: Sequence[Any]) -> None:
        now = simulation.scheduler.now
        late = failures.deadline_passed
        told = [
            (waiting, late() if waiting.deadline and waiting.deadline < now + 0.02 else each)
            for waiting, each in answers
        ]
        real(self, told)

    real = Lane._answer
    with _instead((Lane, "_answer", answer)):
        yield


@bug
def answers_mixed_up(simulation: Simulation) -> Iterator[None]:
    """The answers of a batch go to each other's callers."""

    def answer(self: Lane, answers: Sequence[Any]) -> None:
        outcomes = [outcome for _, outcome in answers]
        shifted = outcomes[1:] + outcomes[:1]
        real(self, [(waiting, each) for (waiting, _), each in zip(answers, shifted, strict=True)])

    real = Lane._answer
    with _instead((Lane, "_answer", answer)):
        yield


@bug
def poison_fails_its_batch(simulation: Simulation) -> Iterator[None]:
    """One operation that cannot be stored fails all that came with it."""

    def isolate(self: Lane, batch: Sequence[Any], cause: Exception) -> None:
        self._answer([(waiting, failures.internal("0")) for waiting in batch])

    with _instead((Lane, "_isolate", isolate)):
        yield


@bug
def cancelled_through(simulation: Simulation) -> Iterator[None]:
    """A caller that gives up breaks off the batch it is in, and the rest is done again."""

    def run(self: Lane, batch: list[Any]) -> None:
        batches.append(batch)
        real(self, batch)

    def transact(session: Session, operations: Sequence[Any], rules: Any) -> Any:
        outcomes = real_transact(session, operations, rules)
        (batch,) = [b for b in batches if [w.operation for w in b] == operations][-1:] or [[]]
        if any(waiting.future.cancelled() for waiting in batch):
            raise BatchFault(Fault.LOST, "cancelled")
        return outcomes

    real, real_transact = Lane._run, transaction.transact
    batches: list[list[Any]] = []
    with _instead((Lane, "_run", run), (lane, "transact", transact)):
        yield


@bug
def asks_again_under_a_new_key(simulation: Simulation) -> Iterator[None]:
    """A caller that was not answered makes a new key."""

    def may_ask_again(calls: Sequence[Call]) -> bool:
        for call in calls:
            if call.method is Method.DEBIT and call.key:
                call.key += "'"
        return real(calls)

    real = clients._may_ask_again
    with _instead((clients, "_may_ask_again", may_ask_again)):
        yield


@bug
def sweeper_gives_up(simulation: Simulation) -> Iterator[None]:
    """The sweeper ends when the database is away for a moment."""

    async def loop(self: Sweeper) -> None:
        with suppress(failures.Failure):
            while True:
                await self.run_once()
                await asyncio.sleep(self._interval_seconds)

    simulation.plan = replace(simulation.plan, crashes=1.0)
    with _instead((Sweeper, "_loop", loop)):
        yield


# Storage: locks, clocks, keys.


@bug
def unsorted_locks(simulation: Simulation) -> Iterator[None]:
    """Each batch locks its accounts in an order of its own."""

    def any_order(account_ids: Any) -> list[str]:
        ids = sorted(account_ids)
        chance.shuffle(ids)
        return ids

    chance = random.Random(1)
    with _instead((database, "lock_order", any_order)):
        yield


@bug
def no_locks(simulation: Simulation) -> Iterator[None]:
    """Accounts are read without being locked."""
    with _instead((database, "lock_order", lambda _: [])), _seen_unlocked():
        yield


@bug
def time_of_begin(simulation: Simulation) -> Iterator[None]:
    """`now()`: the time of a batch is that before it waited for its locks."""

    def begin(self: database.Database) -> database.Transaction:
        transaction = real(self)
        begun[transaction] = self.clock()
        return transaction

    def clock(store: database.Database, transaction: database.Transaction) -> datetime:
        return begun[transaction]

    begun: dict[database.Transaction, datetime] = {}
    real = database.Database.begin
    with _instead((database.Database, "begin", begin), (database, "read_clock", clock)):
        yield


@bug
def process_clock(simulation: Simulation) -> Iterator[None]:
    """The time of a batch is that of the process, whose clock somebody sets."""

    def clock(store: database.Database, transaction: database.Transaction) -> datetime:
        running = simulation.scheduler.running
        assert running is not None
        owner = running.owner
        assert isinstance(owner, Process)
        return max(START, owner.wall_clock())

    simulation.plan = replace(simulation.plan, clock_steps=2.0)
    with _instead((database, "read_clock", clock)):
        yield


@bug
def keys_not_stored(simulation: Simulation) -> Iterator[None]:
    """The keys of debits are not written with them."""

    def persist(connection: database.Connection, writes: Writes) -> None:
        writes.claims = [each for each in writes.claims if each.claim_key.kind != ClaimKind.DEBIT]
        real(connection, writes)

    real = database.persist
    with _instead((transaction, "persist", persist)):
        yield


@bug
def lost_update(simulation: Simulation) -> Iterator[None]:
    """Of a batch with several accounts, the totals of one are not written."""

    def persist(connection: database.Connection, writes: Writes) -> None:
        stored = [key for key, account in writes.accounts.items() if account.stored]
        if len(stored) > 2:
            del writes.accounts[stored[0]]
        real(connection, writes)

    real = database.persist
    with _instead((transaction, "persist", persist)):
        yield


@bug
def acknowledged_unwritten(simulation: Simulation) -> Iterator[None]:
    """A batch that makes but holds has nothing to write: so thinks the check for an empty one."""
    with _instead((posting.Writes, "__bool__", lambda self: bool(self.entries or self.claims))):
        yield


@bug
def stale_reads(simulation: Simulation) -> Iterator[None]:
    """A balance is read from a replica that is behind."""

    async def run(self: _Reader, read: Callable[..., Any], *arguments: Any) -> Any:
        answer = await real(self, read, *arguments)
        if read.__name__ != "read_account":
            return answer
        seen = last.setdefault(arguments, answer)
        last[arguments] = answer
        return seen

    last: dict[Any, Any] = {}
    real = _Reader.run
    with _instead((_Reader, "run", run)):
        yield


# The core: keys, holds, lots and their times.


@bug
def key_without_fingerprint(simulation: Simulation) -> Iterator[None]:
    """A used key answers for any request."""
    with _instead((replay, "mismatch", lambda request, receipt: None)):
        yield


@bug
def replay_of_today(simulation: Simulation) -> Iterator[None]:
    """A replay tells the balance of today."""

    def debit(part: Posting, account: Account | None, *rest: Any) -> Debited | Rejected:
        outcome = real(part, account, *rest)
        if isinstance(outcome, Debited) and outcome.replayed and account is not None:
            return replace(outcome, balance=account.balance())
        return outcome

    real = charges._debit
    with _instead((charges, "_debit", debit)):
        yield


@bug
def refusal_stored_as_done(simulation: Simulation) -> Iterator[None]:
    """A debit that is not covered is answered as if it were."""

    def insufficient(account: Account | None, required_micros: int) -> Any:
        if account is None or not account.charges:
            return real(account, required_micros)
        return Debited(account.balance(), account.charges[max(account.charges)])

    real = holds.insufficient
    with _instead((charges, "insufficient", insufficient)):
        yield


@bug
def forgotten_lot_return(simulation: Simulation) -> Iterator[None]:
    """What a settle leaves of a hold does not return to its lots."""

    def free_hold(part: Posting, account: Account, parts: Any, on_credit: int, *_: Any) -> None:
        account.held_micros -= on_credit + sum(each.micros for each in parts)
        account.held_on_credit_micros -= on_credit

    with _instead((funds, "free_hold", free_hold)):
        yield


@bug
def early_expiry(simulation: Simulation) -> Iterator[None]:
    """Holds end a little before their time."""

    def due(account: Account, now: datetime) -> Any:
        return real(account, now + timedelta(milliseconds=20))

    def is_due(account: Account, now: datetime) -> bool:
        return real_check(account, now + timedelta(milliseconds=20))

    real, real_check = expiry._due, expiry.is_due
    with _instead((expiry, "_due", due), (decide, "is_due", is_due)):
        yield


@bug
def expired_twice(simulation: Simulation) -> Iterator[None]:
    """A hold that was charged at its expiry stays active."""

    def end(part: Posting, reservation: Reservation) -> None:
        part.touch_reservation(reservation)

    with _instead((expiry, "_end", end)):
        yield


@bug
def charged_what_it_captured_too(simulation: Simulation) -> Iterator[None]:
    """A hold that expires is charged whole, whatever was captured of it."""

    def charge(part: Posting, account: Account, reservation: Reservation) -> None:
        again = reservation.captured_micros
        real(part, account, reservation)
        if again:
            account.spent_micros += again
            part.entry(
                account,
                EntryKind.EXPIRY_CHARGE,
                -again,
                funds.charge(part, account, again),
                reservation_id=reservation.reservation_id,
            )

    real = expiry._charge_hold
    with _instead((expiry, "_charge_hold", charge)):
        yield


@bug
def spends_the_holds_of_others(simulation: Simulation) -> Iterator[None]:
    """What is held counts as free."""

    def spendable(self: Account) -> int:
        return max(0, self.remaining_micros + self.credit_limit_micros)

    with _instead((Account, "spendable_micros", property(spendable))):
        yield


@bug
def admits_one_too_many(simulation: Simulation) -> Iterator[None]:
    """A hold may be a micro larger than what there is."""

    def reservable(self: Account) -> int:
        credit = self.credit_limit_micros if self.holds_use_credit else 0
        return max(0, self.available_micros + credit + 1)

    with _instead((Account, "reservable_micros", property(reservable))):
        yield


@bug
def settled_twice(simulation: Simulation) -> Iterator[None]:
    """A capture does not look at what was captured under its id."""

    def settle(part: Posting, account: Account | None, operation: Any) -> Any:
        if operation.keep_open:
            operation = replace(operation, capture_id=f"{operation.capture_id}-{part.now}")
        return real(part, account, operation)

    real = holds.settle
    with _instead((holds, "settle", settle)):
        yield


@bug
def released_after_a_settle(simulation: Simulation) -> Iterator[None]:
    """A release says that it ended a hold that had ended."""

    def release(part: Posting, account: Account | None, operation: Any) -> Any:
        outcome = real(part, account, operation)
        if not isinstance(outcome, Rejected):
            outcome.changed = True
        return outcome

    real = holds.release
    with _instead((holds, "release", release)):
        yield


@bug
def torn_chains(simulation: Simulation) -> Iterator[None]:
    """A chain works on the rows themselves, so that a refusal leaves what was done before it."""

    def carry_out(part: Posting, chain: Any, step: Any) -> Any:
        outcomes: list[Any] = []
        for operation in chain.operations:
            outcome = step(part, operation)
            if isinstance(outcome, Rejected):
                return chains._refused(chain, len(outcomes), outcome)
            outcomes.append(outcome)
        return Chained(outcomes)

    with _instead((chains, "carry_out", carry_out)):
        yield


@bug
def skipped_number(simulation: Simulation) -> Iterator[None]:
    """The ledger leaves a number out, every now and then."""

    def entry(self: Posting, account: Account, *args: Any, **more: Any) -> Any:
        if account.seq == 5:
            account.seq += 1
        return real(self, account, *args, **more)

    real = Posting.entry
    with _instead((Posting, "entry", entry)):
        yield


def _slow_commits(simulation: Simulation) -> list[tuple[Any, str, Any]]:
    """Have COMMITs be under way for long, and their answers get lost."""
    chances = simulation.database.chances
    return [(chances, "stall", 0.1), (chances, "cut", 0.05)]


@contextmanager
def _seen_unlocked() -> Iterator[None]:
    """Show rows that are not locked."""

    def look_up(self: Shelf, wanted: Any, _: Any, tombstones: Any) -> State:
        return real(self, wanted, wanted.account_ids, tombstones)

    real = Shelf.look_up
    with _instead((Shelf, "look_up", look_up)):
        yield
