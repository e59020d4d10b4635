"""Reserve: who is admitted, what is held, and which lots it is earmarked in."""

from __future__ import annotations

from datetime import timedelta

from meterhold_server.core.model import Rules
from meterhold_server.core.outcomes import Reason, Rejected, Reserved

from .book import Book, grant, reserve
from .table import check


def test_a_hold_takes_from_the_available_balance_and_writes_no_entry() -> None:
    check("""
        grant   gift 100         | granted 100
        reserve job 60 ttl=5m    | held 60 until=5m available=40 held=60 remaining=100 seq=1
        balance available=40 held=60 spent=0 remaining=100 seq=1
        lots    1:40/60
        ledger  GRANT+100
        reservation job ACTIVE reserved=60 open=60 captured=0 until=5m parts=1:60 end=
    """)


def test_twenty_holds_of_75_on_500_admit_exactly_6() -> None:
    book = Book()
    book.do(grant("gift", 500))
    outcomes = [book.do(reserve(f"job-{number}", 75)) for number in range(20)]
    assert [type(outcome) for outcome in outcomes] == [Reserved] * 6 + [Rejected] * 14
    refusal = outcomes[-1]
    assert isinstance(refusal, Rejected)
    assert refusal.reason is Reason.INSUFFICIENT_CREDITS
    assert refusal.details == {
        "available_micros": 50,
        "required_micros": 75,
        "reservable_micros": 50,
    }


def test_twenty_holds_in_one_batch_admit_as_many() -> None:
    book = Book()
    book.do(grant("gift", 500))
    outcomes = book.do_all([reserve(f"job-{number}", 75) for number in range(20)])
    assert [type(outcome) for outcome in outcomes] == [Reserved] * 6 + [Rejected] * 14


def test_exactly_the_remaining_balance_passes() -> None:
    check("""
        grant   gift 100    | granted 100
        reserve all 100     | held 100 available=0
        reserve one 1       | refused INSUFFICIENT_CREDITS available=0 required=1 reservable=0
    """)


def test_one_more_than_the_remaining_balance_does_not_pass() -> None:
    check("""
        grant   gift 100    | granted 100
        reserve job 101     | refused INSUFFICIENT_CREDITS available=100 required=101 reservable=100
        balance available=100 held=0
    """)


def test_an_unknown_account_has_nothing_and_is_not_created() -> None:
    check("""
        account nobody
        reserve job 1       | refused INSUFFICIENT_CREDITS available=0 required=1 reservable=0
        reserve job 1 min=1 | refused INSUFFICIENT_CREDITS available=0 required=1 reservable=0
        nothing nobody
    """)


def test_a_minimum_admits_a_smaller_hold() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve big 150 min=100   | held 100 available=0 held=100
        reserve next 150 min=1    | refused INSUFFICIENT_CREDITS available=0 required=1 reservable=0
    """)


def test_a_minimum_does_not_make_a_hold_smaller_than_need_be() -> None:
    check("""
        grant   gift 100         | granted 100
        reserve job 60 min=10    | held 60
        reserve two 60 min=10    | held 40
        reserve three 60 min=10  | refused INSUFFICIENT_CREDITS required=10
    """)


def test_a_floor_asks_for_more_than_it_holds() -> None:
    check("""
        grant   gift 100               | granted 100
        reserve low 10 floor=101       | refused INSUFFICIENT_CREDITS required=101 available=100
        reserve job 10 floor=100       | held 10 available=90
        reserve two 95 min=5 floor=90  | held 90 available=0
    """)


def test_a_floor_below_the_amount_changes_nothing() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 101 floor=1   | refused INSUFFICIENT_CREDITS required=101
        reserve job 100 floor=1   | held 100
    """)


def test_a_hold_without_a_ttl_lasts_for_the_servers_default() -> None:
    check("""
        grant   gift 100    | granted 100
        reserve job 60      | held 60 until=15m
    """)
    check(
        """
        grant   gift 100    | granted 100
        reserve job 60      | held 60 until=7m
        """,
        Rules(ttl_default=timedelta(minutes=7)),
    )


def test_a_hold_is_earmarked_in_spend_order() -> None:
    check("""
        grant   paid 30                     | granted 30
        grant   allowance 30 priority=10    | granted 30
        grant   gift 30 expires=1h          | granted 30
        reserve job 70                      | held 70
        reservation job ACTIVE parts=2:30,3:30,1:10
        lots    2:0/30 3:0/30 1:20/10
        reserve two 20                      | held 20
        reservation two ACTIVE parts=1:20
    """)


def test_what_is_held_is_not_spent_by_anyone_else() -> None:
    check("""
        grant   gift 100    | granted 100
        reserve job 60      | held 60
        debit   41          | refused INSUFFICIENT_CREDITS available=40 required=41 reservable=40
        debit   40          | debited 40
        settle  job 60      | charged 60 from_hold=60
        balance available=0 held=0 spent=100
    """)


def test_a_due_hold_makes_room_for_the_next_without_a_sweeper() -> None:
    check("""
        grant   gift 100        | granted 100
        reserve job 100 ttl=5m  | held 100
        at      4m59s
        reserve two 100 ttl=5m  | refused INSUFFICIENT_CREDITS available=0
        at      5m
        reserve two 100 ttl=5m  | held 100 until=10m
        reservation job EXPIRED released=100 end=5m
    """)


def test_a_due_lot_admits_nothing_without_a_sweeper() -> None:
    check("""
        grant   gift 100 expires=5m  | granted 100
        at      5m
        reserve job 1                | refused INSUFFICIENT_CREDITS available=0
        ledger  GRANT+100 EXPIRY-100
    """)


def test_an_account_in_debt_is_not_admitted_until_it_is_repaid() -> None:
    check("""
        grant   gift 10                   | granted 10
        debit   30 overage=overdraft      | debited 30 available=-20 debt=20
        reserve job 1                     | refused INSUFFICIENT_CREDITS available=-20 reservable=0
        grant   more 20                   | granted 20 repaid=20 available=0
        reserve job 1                     | refused INSUFFICIENT_CREDITS available=0 reservable=0
        grant   much 20                   | granted 20
        reserve job 1                     | held 1
    """)


def test_holds_of_one_id_in_two_accounts_are_two() -> None:
    check("""
        grant   a 100          | granted 100
        reserve job 60         | held 60
        account bob
        grant   b 100          | granted 100
        reserve job 70         | held 70
        account alice unit=tokens
        grant   c 100          | granted 100
        reserve job 80         | held 80
        account alice namespace=test
        reserve job 1          | refused INSUFFICIENT_CREDITS available=0
        account alice
        reservation job ACTIVE open=60
    """)
