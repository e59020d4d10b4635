"""What always holds, whatever is asked: tried with random operations and random pauses."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from meterhold_server.core.copies import copy_of_state
from meterhold_server.core.decide import decide
from meterhold_server.core.model import (
    EntryKind,
    Overage,
    ReservationState,
    Rules,
)
from meterhold_server.core.operations import (
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Operation,
    Reserve,
    RevokeGrant,
    Settle,
)
from meterhold_server.core.outcomes import (
    Debited,
    Expired,
    Extended,
    Granted,
    Outcome,
    Rejected,
    Reserved,
    Settled,
)

from .book import Book
from .strategies import LAW, SIDE_LAW, Batch, Step, batches, books, pauses, scripts

Keyed = Reserved | Settled | Extended | Debited | Granted


@LAW
@given(books(), batches, st.data())
def test_batching_is_invisible(whole: Book, script: list[Batch], data: st.DataObject) -> None:
    cut = whole.twin()
    for batch in script:
        whole.wait(batch.pause)
        cut.wait(batch.pause)
        cuts = data.draw(st.lists(st.integers(0, len(batch.operations)), max_size=3), "cuts")
        edges = sorted([0, *cuts, len(batch.operations)])
        outcomes = [
            outcome
            for start, end in pairwise(edges)
            for outcome in cut.do_all(batch.operations[start:end])
        ]
        assert whole.do_all(batch.operations) == outcomes
    assert whole.state == cut.state
    assert whole.entries == cut.entries


@SIDE_LAW
@given(books(), scripts)
def test_nothing_is_made_or_lost(book: Book, script: list[Step]) -> None:
    """`Book` checks every identity after each operation, here and in all other tests."""
    for pause, operation in script:
        book.wait(pause)
        book.do(operation)


@SIDE_LAW
@given(books(), scripts)
def test_a_refusal_changes_nothing_but_what_was_due_anyway(book: Book, script: list[Step]) -> None:
    for pause, operation in script:
        book.wait(pause)
        before = copy_of_state(book.state)
        if isinstance(book.do(operation), Rejected):
            alone = decide(before, [Expire(operation.account)], book.now, book.rules)
            assert book.state == before
            assert book.written == alone.writes


@SIDE_LAW
@given(books(), scripts)
def test_a_successful_operation_repeated_at_once_gives_the_same_and_changes_nothing(
    book: Book, script: list[Step]
) -> None:
    for pause, operation in script:
        book.wait(pause)
        outcome = book.do(operation)
        if _keyed(operation) and not isinstance(outcome, Rejected):
            before = copy_of_state(book.state)
            assert book.do(operation) == _replayed(outcome)
            assert book.state == before
            assert not book.written


@SIDE_LAW
@given(books(), scripts, pauses)
def test_a_successful_operation_repeated_later_gives_the_same_and_changes_nothing(
    book: Book, script: list[Step], pause_after: timedelta
) -> None:
    done: list[tuple[Operation, Outcome]] = []
    for pause, operation in script:
        book.wait(pause)
        outcome = book.do(operation)
        if _keyed(operation) and not isinstance(outcome, Rejected):
            done.append((operation, outcome))
    book.wait(pause_after)
    for operation, outcome in done:
        book.do(Expire(operation.account))
        before = copy_of_state(book.state)
        assert book.do(operation) == _replayed(outcome)
        assert book.state == before
        assert not book.written


@SIDE_LAW
@given(books(), scripts)
def test_only_overdraft_and_revocations_go_further_below_the_credit_limit(
    book: Book, script: list[Step]
) -> None:
    for pause, operation in script:
        book.wait(pause)
        book.do(Expire(operation.account))
        before = book.account(operation.account).available_micros
        book.do(operation)
        account = book.account(operation.account)
        overdraws = getattr(operation, "overage", None) is Overage.OVERDRAFT
        if not overdraws and not isinstance(operation, RevokeGrant):
            assert account.available_micros >= min(before, -account.credit_limit_micros)


@SIDE_LAW
@given(books(), scripts)
def test_an_operation_on_one_account_never_touches_another(book: Book, script: list[Step]) -> None:
    for pause, operation in script:
        book.wait(pause)
        others = copy_of_state(book.state)
        others.accounts.pop(operation.account_id, None)
        book.do(operation)
        assert set(book.written.accounts) <= {operation.account_id}
        for account_id, account in others.accounts.items():
            assert book.state.accounts[account_id] == account


@SIDE_LAW
@given(books(), scripts)
def test_nothing_expires_early_and_everything_once(book: Book, script: list[Step]) -> None:
    for pause, operation in script:
        book.wait(pause)
        book.do(operation)
        _assert_nothing_expired_early(book, operation)
        before = copy_of_state(book.state)
        again = book.do(Expire(operation.account))
        assert again == Expired(book.account(operation.account).balance())
        assert book.state == before
        assert not book.written


def _assert_nothing_expired_early(book: Book, operation: Operation) -> None:
    """And that nothing that is due is still there."""
    account = book.account(operation.account)
    lots = {lot.seq: lot for lot in account.lots}
    for reservation in account.reservations.values():
        if reservation.state is ReservationState.EXPIRED:
            assert reservation.end_time == reservation.expire_time
        assert reservation.active <= (reservation.expire_time > book.now)
        assert (reservation.state is ReservationState.EXPIRED) <= (
            reservation.expire_time <= book.now
        )
    for entry in book.written.entries:
        if entry.kind is EntryKind.EXPIRY:
            expire_time = lots[entry.related_seq].expire_time
            assert expire_time is not None
            assert expire_time <= entry.create_time
    assert not any(lot.expired(book.now) and lot.available_micros for lot in account.lots)


@SIDE_LAW
@given(books(), scripts)
def test_sweeping_on_time_or_late_comes_to_the_same(lazy: Book, script: list[Step]) -> None:
    """Whoever asks cannot tell; only the ledger can, whose entries say when they were written."""
    eager = lazy.twin()
    for pause, operation in script:
        if getattr(operation, "allowance", None):
            continue  # Boundaries that were missed give one refill: only that tells.
        lazy.wait(pause)
        _sweep_up_to(eager, lazy.now)
        late, on_time = lazy.do(operation), eager.do(operation)
        if isinstance(late, Expired) and isinstance(on_time, Expired):
            assert late.balance == on_time.balance
        else:
            assert late == on_time


def _sweep_up_to(book: Book, now: datetime) -> None:
    while due := [
        account
        for account in book.state.accounts.values()
        if account.next_expire_time is not None and account.next_expire_time <= now
    ]:
        account = min(due, key=lambda each: each.next_expire_time or now)
        assert account.next_expire_time is not None
        book.now = max(book.now, account.next_expire_time)
        book.do(Expire(account.key))
    book.now = now


@SIDE_LAW
@given(books(), batches)
def test_deciding_is_a_function_of_its_arguments(book: Book, script: list[Batch]) -> None:
    """Equal arguments, equal decisions; and what is asked is never changed."""
    now, state, twin = book.now, book.state, deepcopy(book.state)
    for batch in script:
        now += batch.pause
        asked = deepcopy(batch.operations)
        assert decide(state, batch.operations, now, Rules()) == decide(twin, asked, now, Rules())
        assert batch.operations == asked
        assert state == twin


def _keyed(operation: Operation) -> bool:
    """Whether a repetition is told from a second operation."""
    match operation:
        case Reserve() | Settle() | DebitOnce() | GrantOnce():
            return True
        case Debit():
            return bool(operation.request_id)
        case Extend():
            return bool(operation.extend_id)
        case _:
            return False


def _replayed(outcome: Outcome) -> Keyed:
    assert isinstance(outcome, Reserved | Settled | Extended | Debited | Granted)
    return replace(outcome, replayed=True)
