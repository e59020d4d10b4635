"""The bounds: every total stays within 9·10^18, and what would go past it writes nothing.

The edge lets one call move 10^15 at most; the larger amounts here stand for thousands of calls.
"""

from __future__ import annotations

import pytest

from meterhold_server.core.copies import copy_of_state
from meterhold_server.core.model import BALANCE_MICROS_MAX
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Reason, Rejected

from .book import (
    Book,
    capture,
    debit,
    debit_once,
    extend,
    grant,
    reserve,
    settle,
)
from .table import check

MAX = BALANCE_MICROS_MAX
OVERDRAFT = "overage=overdraft"


def test_the_bound_leaves_room_in_int64() -> None:
    assert 2 * 10**17 < 2**63 - 1 - MAX < 10**18


def test_what_is_granted() -> None:
    check(f"""
        grant   a {MAX - 1}    | granted {MAX - 1}
        grant   b 2            | refused BALANCE_OUT_OF_RANGE field=granted_micros limit={MAX}
        grant   b 1            | granted 1
        debit   {MAX}          | debited {MAX} available=0
        grant   c 1            | refused BALANCE_OUT_OF_RANGE   # a lifetime total never falls
    """)


def test_an_account_at_the_bound_can_still_be_spent() -> None:
    check(f"""
        grant   a {MAX}                            | granted {MAX}
        reserve job {MAX}                          | held {MAX}
        capture job a 10                           | charged 10 from_hold=10
        settle  job 20                             | charged 20 from_hold=20 released={MAX - 30}
        debit   {MAX - 30}                         | debited {MAX - 30}
    """)


def test_an_account_that_would_be_created_past_the_bound_is_not() -> None:
    check(f"""
        grant   a {MAX + 1}    | refused BALANCE_OUT_OF_RANGE
        nothing alice
    """)


def test_what_is_spent() -> None:
    check(f"""
        grant   gift 100                           | granted 100
        debit   {MAX - 1} {OVERDRAFT}              | debited {MAX - 1} debt={MAX - 101}
        debit   2 {OVERDRAFT}                      | refused BALANCE_OUT_OF_RANGE field=spent_micros
        debit   1 {OVERDRAFT}                      | debited 1 available=-{MAX - 100}
        debit_once key 1 {OVERDRAFT}               | refused BALANCE_OUT_OF_RANGE
    """)


def test_holds_count_as_spent_since_their_expiry_cannot_be_refused() -> None:
    check(f"""
        grant   gift 100                           | granted 100
        reserve job 60 ttl=5m on_expiry=charge     | held 60
        debit   {MAX - 59} {OVERDRAFT}             | refused BALANCE_OUT_OF_RANGE
        debit   {MAX - 60} {OVERDRAFT}             | done
        settle  job 61 {OVERDRAFT}                 | refused BALANCE_OUT_OF_RANGE
        at      5m
        expire                                     | expired charged=1 spent={MAX}
    """)


def test_a_late_settle_that_would_refund_past_the_bound() -> None:
    check(f"""
        grant   gift {MAX}                         | granted {MAX}
        reserve job 60 ttl=5m on_expiry=charge     | held 60
        at      5m
        settle  job 59                             | refused BALANCE_OUT_OF_RANGE
        ledger  GRANT+{MAX} EXPIRY_CHARGE-60
        reservation job EXPIRED expiry_charged=60
        settle  job 60                             | charged 60 from_hold=60 late
    """)


def test_what_was_refunded_counts_as_granted() -> None:
    check(f"""
        grant   gift {MAX - 10}                    | granted {MAX - 10}
        reserve job 60 ttl=5m on_expiry=charge     | held 60
        at      5m
        settle  job 54                             | charged 54 from_hold=54 released=6 late
        grant   more 5                             | refused BALANCE_OUT_OF_RANGE
        grant   more 4                             | granted 4
    """)


@pytest.mark.parametrize(
    "operation",
    [
        grant("more", MAX),
        reserve("next", MAX),
        settle("job", MAX + 1),
        capture("job", "a", MAX + 1),
        extend("job", add_amount_micros=MAX, extend_id="a"),
        debit(MAX, request_id="request"),
        debit_once("key", MAX),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_nothing_is_written(operation: Operation) -> None:
    book = Book()
    book.allow_credit(2 * MAX, holds=True)
    book.do(grant("gift", 100))
    book.do(reserve("job", 60))
    before = copy_of_state(book.state)
    outcome = book.do(operation)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.BALANCE_OUT_OF_RANGE
    assert not book.written
    assert book.state == before
