"""What is loaded is enough, and what is written is all: the contract between core and storage."""

from __future__ import annotations

import pytest
from hypothesis import given

from meterhold_server.core.model import ClaimKey, ClaimKind, account_id_of
from meterhold_server.core.needs import Needs, needs, still_needs
from meterhold_server.core.operations import Operation

from .book import (
    ALICE,
    Book,
    capture,
    debit,
    debit_once,
    expire,
    extend,
    grant,
    release,
    reserve,
    settle,
)
from .shelf import Shelf
from .strategies import LAW, Batch, batches, books
from .table import check


@LAW
@given(books(), batches)
def test_a_state_of_what_is_needed_decides_as_the_whole_state(
    book: Book, script: list[Batch]
) -> None:
    """Batch after batch against rows that were loaded and written, and against all in memory.

    Equal to the last number, `next_expire_time` and the order of the lots included. The receipts
    have gone through JSON on their way, so that replays are told from what comes off the disk.
    """
    shelf = Shelf(book.state)
    for batch in script:
        book.wait(batch.pause)
        assert shelf.do_all(batch.operations, book.now, book.rules) == book.do_all(batch.operations)
        assert shelf.state() == book.state


def test_most_batches_need_nothing_more() -> None:
    book = check("""
        grant   gift 100 expires=10m   | granted 100
        reserve job 60 ttl=5m          | held 60
        settle  job 40                 | charged 40 from_hold=40 released=20
        reserve run 60 ttl=5m          | held 60
        at      4m59s
    """)
    assert not still_needs(book.state, book.now, Needs())


def test_a_due_account_needs_its_due_holds() -> None:
    book = check("""
        grant   gift 100               | granted 100
        reserve run 60 ttl=5m          | held 60
        account bob
        grant   other 100              | granted 100
        at      5m
    """)
    wanted = still_needs(book.state, book.now, Needs())
    assert wanted.due_account_ids == {account_id_of(ALICE)}
    assert wanted.lots == set()


def test_a_late_settle_needs_the_lots_it_may_give_back_to_though_they_are_empty() -> None:
    book = check("""
        grant   gift 50                          | granted 50
        grant   more 50                          | granted 50
        reserve job 80 ttl=5m on_expiry=charge   | held 80
        debit   20                               | debited 20
        at      5m
        expire                                   | expired charged=1
        lots    none
    """)
    alice = account_id_of(ALICE)
    assert still_needs(book.state, book.now, Needs()).lots == {(alice, 1), (alice, 2)}
    book.do(settle("job", 80))
    assert not still_needs(book.state, book.now, Needs()), (
        "what is settled gives nothing back any more"
    )


@pytest.mark.parametrize(
    ("operation", "keys"),
    [
        (reserve("job", 1), []),
        (settle("job", 1), []),
        (capture("job", "a", 1), [(ClaimKind.CAPTURE, account_id_of(ALICE), "job\na")]),
        (release("job"), []),
        (extend("job"), []),
        (extend("job", extend_id="a"), [(ClaimKind.EXTEND, account_id_of(ALICE), "job\na")]),
        (debit(1), []),
        (debit(1, request_id="r"), [(ClaimKind.DEBIT, account_id_of(ALICE), "r")]),
        (debit_once("k", 1), [(ClaimKind.DEBIT_ONCE, "live", "k")]),
        (
            grant("k", 1, legacy_keys=("l",)),
            [
                (kind, "live", key)
                for key in "kl"
                for kind in (ClaimKind.GRANT_ONCE, ClaimKind.GRANT_AFTER_TOMBSTONE)
            ],
        ),
        (expire(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_keys_are_looked_up_in_their_scope(operation: Operation, keys: list[ClaimKey]) -> None:
    """In the namespace for the kinds whose retries may be misrouted, else in the account."""
    wanted = needs([operation])
    assert wanted.claims == set(keys)
    assert wanted.account_ids == {account_id_of(ALICE)}
    named = {(account_id_of(ALICE), "job")} if hasattr(operation, "reservation_id") else set()
    assert wanted.reservations == named
