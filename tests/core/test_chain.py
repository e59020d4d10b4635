"""Chains: all of it is done, or nothing of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from meterhold_server.core.copies import copy_of_state
from meterhold_server.core.decide import decide
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.core.needs import needs
from meterhold_server.core.operations import Chain, Expire, Link, Operation, RevokeGrant
from meterhold_server.core.outcomes import (
    Chained,
    Debited,
    Granted,
    Outcome,
    Reason,
    Rejected,
    Reserved,
    Settled,
)

from .book import ALICE, Book, capture, debit, debit_once, expire, grant, reserve, settle
from .strategies import (
    BOB,
    LAW,
    MINUTE,
    SIDE_LAW,
    Batch,
    Step,
    batches,
    books,
    names_account,
    scripts,
)


def chain(*operations: Link) -> Chain:
    return Chain(operations)


def outcomes_of(outcome: Outcome) -> list[Outcome]:
    assert isinstance(outcome, Chained)
    return outcome.outcomes


def chain_refused(index: int) -> Rejected:
    return Rejected(Reason.CHAIN_REFUSED, {"index": index})


@pytest.fixture
def book() -> Book:
    """Alice has 100, Bob does not exist."""
    book = Book()
    book.do(grant("first", 100))
    return book


def _replayed(outcome: Outcome) -> Outcome:
    assert isinstance(outcome, Debited | Granted | Reserved | Settled)
    return replace(outcome, replayed=True)


def move(micros: int, *, of: AccountKey = ALICE, to: AccountKey = BOB) -> Chain:
    return chain(
        debit_once("move", micros, account=of), grant("move", micros, account=to, reason="move")
    )


def test_credits_move_from_one_account_to_another(book: Book) -> None:
    debited, granted = outcomes_of(book.do(move(60)))
    assert isinstance(debited, Debited)
    assert isinstance(granted, Granted)
    assert book.account(ALICE).available_micros == 40
    assert book.account(BOB).available_micros == 60


def test_what_comes_first_is_there_for_what_comes_next(book: Book) -> None:
    outcomes = outcomes_of(
        book.do(
            chain(
                grant("more", 50),
                reserve("job", 150),
                capture("job", "a", 40),
                settle("job", 100),
            )
        )
    )
    assert [type(outcome) for outcome in outcomes] == [Granted, Reserved, Settled, Settled]
    assert book.account().available_micros == 10


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_that_is_refused_undoes_the_others(book: Book, index: int) -> None:
    links: list[Link] = [reserve("job", 10), grant("new", 5, account=BOB)]
    links.insert(index, debit(101))
    before = copy_of_state(book.state)
    outcomes = outcomes_of(book.do(chain(*links)))
    refused = outcomes.pop(index)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.INSUFFICIENT_CREDITS
    assert outcomes == [chain_refused(index)] * 2
    assert book.state == before
    assert not book.written


def test_only_the_first_that_is_refused_has_its_reason(book: Book) -> None:
    outcomes = outcomes_of(book.do(chain(debit(10), debit(91), debit(92))))
    assert [type(outcome) for outcome in outcomes] == [Rejected] * 3
    assert outcomes[0] == outcomes[2] == chain_refused(1)


def test_what_is_due_expires_though_the_chain_is_refused(book: Book) -> None:
    book.do(grant("brief", 30, account=BOB, expire_time=book.now + MINUTE))
    book.do(reserve("job", 60, ttl=MINUTE))
    book.wait(MINUTE)
    book.do(chain(debit(101), debit(1, account=BOB)))
    assert book.account(ALICE).held_micros == 0
    assert book.account(BOB).expired_micros == 30


def test_an_account_is_created_by_a_chain_that_is_done_alone(book: Book) -> None:
    book.do(chain(grant("gift", 5, account=BOB), debit(6, account=BOB)))
    assert account_id_of(BOB) not in book.state.accounts
    book.do(chain(grant("gift", 5, account=BOB), debit(5, account=BOB)))
    assert book.account(BOB).spent_micros == 5


def test_a_key_of_a_chain_that_was_refused_is_free(book: Book) -> None:
    refused = outcomes_of(book.do(chain(debit_once("key", 10), debit(91))))
    assert refused[0] == chain_refused(1)
    outcome = book.do(debit_once("key", 20))
    assert isinstance(outcome, Debited)
    assert not outcome.replayed


def test_a_tombstone_of_a_chain_that_was_refused_stops_no_grant(book: Book) -> None:
    revoke = RevokeGrant(BOB, "order", fraction_ppm=1_000_000, allow_tombstone=True)
    outcomes_of(book.do(chain(revoke, debit(101))))
    assert isinstance(book.do(grant("order", 5, account=BOB)), Granted)


def test_a_chain_that_is_sent_again_is_replayed(book: Book) -> None:
    links = move(60), reserve("job", 10), capture("job", "a", 5)
    whole = chain(*links[0].operations, *links[1:])
    first = outcomes_of(book.do(whole))
    before = copy_of_state(book.state)
    again = outcomes_of(book.do(whole))
    assert again == [_replayed(outcome) for outcome in first]
    assert book.state == before
    assert not book.written


def test_one_part_that_was_done_before_is_replayed_beside_what_is_new(book: Book) -> None:
    book.do(debit_once("move", 60))
    debited, granted = outcomes_of(book.do(move(60)))
    assert isinstance(debited, Debited)
    assert debited.replayed
    assert isinstance(granted, Granted)
    assert not granted.replayed
    assert book.account(ALICE).spent_micros == 60


def test_a_mismatch_refuses_the_chain(book: Book) -> None:
    book.do(debit_once("move", 61))
    outcomes = outcomes_of(book.do(move(60)))
    assert outcomes[0] == Rejected(
        Reason.IDEMPOTENCY_MISMATCH, {"field": "amount_micros", "original": 61}
    )
    assert outcomes[1] == chain_refused(0)
    assert account_id_of(BOB) not in book.state.accounts


def test_what_comes_before_and_after_a_refused_chain_in_its_batch_is_done(book: Book) -> None:
    book.do_all([debit(10), chain(debit(20), debit(71)), debit(30), chain(debit(60))])
    assert [entry.amount_micros for entry in book.ledger()] == [100, -10, -30, -60]


def test_a_chain_needs_what_its_operations_need() -> None:
    links: list[Link] = [reserve("job", 1), debit_once("k", 1, account=BOB), grant("g", 1)]
    assert needs([chain(*links)]) == needs(links)


@LAW
@given(books(), scripts)
def test_a_chain_of_one_is_the_operation(book: Book, script: list[Step]) -> None:
    alone = book.twin()
    for pause, operation in script:
        book.wait(pause)
        alone.wait(pause)
        if isinstance(operation, Link) and names_account(operation):
            assert book.do(chain(operation)) == Chained([alone.do(operation)])
            assert book.written == alone.written
        else:
            assert book.do(operation) == alone.do(operation)
    assert book.state == alone.state
    assert book.entries == alone.entries


@LAW
@given(books(), batches)
def test_a_chain_is_its_operations_or_nothing_but_what_was_due(
    book: Book, script: list[Batch]
) -> None:
    """Done, it is what its operations are one after the other. Refused, it changes nothing."""
    for batch in script:
        book.wait(batch.pause)
        for operation in batch.operations:
            apart = book.twin()
            outcome = book.do(operation)
            if not isinstance(operation, Chain) or not isinstance(outcome, Chained):
                continue
            due: list[Operation] = [Expire(each.account) for each in operation.operations]
            if any(isinstance(each, Rejected) for each in outcome.outcomes):
                _assert_refused(operation, outcome, apart)
                apart.do_all(due)
            else:
                done = apart.do_all([*due, *operation.operations])
                assert done[len(due) :] == outcome.outcomes
            assert book.state == apart.state
            assert book.entries == apart.entries
            assert book.written == apart.written


def _assert_refused(operation: Chain, outcome: Chained, apart: Book) -> None:
    """The one that is refused, and why, is that of the operations one after the other."""
    state = copy_of_state(apart.state)
    alone = decide(state, operation.operations, apart.now, apart.rules).outcomes
    index = next(number for number, each in enumerate(alone) if isinstance(each, Rejected))
    expected: list[Outcome] = [chain_refused(index)] * len(alone)
    expected[index] = alone[index]
    assert outcome.outcomes == expected


@SIDE_LAW
@given(books(), scripts)
def test_a_chain_of_a_whole_script_loses_nothing(book: Book, script: list[Step]) -> None:
    """`Book` checks every identity after it."""
    links = [each for _, each in script if isinstance(each, Link) and names_account(each)]
    book.do(expire())
    if links:
        book.do(chain(*links))
