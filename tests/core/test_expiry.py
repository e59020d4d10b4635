"""Expiry: each once, never early, in the order of the times themselves, swept or not."""

from __future__ import annotations

from datetime import timedelta

from .book import START, expire
from .table import check


def test_a_lot_is_written_off_at_its_time() -> None:
    check("""
        grant   gift 100 expires=10m    | granted 100
        debit   30                      | debited 30
        at      9m59s999999us
        expire                          | expired available=70
        at      10m
        expire                          | expired lots=1 available=0 expired=70
        ledger  GRANT+100 DEBIT-30 EXPIRY-70
        entry   3 EXPIRY-70 parts=1:70 reservation= related=1 at=10m
        expire                          | expired expired=70
        at      1d
        expire                          | expired expired=70
    """)


def test_an_empty_lot_has_nothing_to_write_off() -> None:
    check("""
        grant   gift 100 expires=10m    | granted 100
        debit   100                     | debited 100
        at      10m
        expire                          | expired
        ledger  GRANT+100 DEBIT-100
    """)


def test_an_unknown_account_has_nothing_to_expire() -> None:
    check("""
        account nobody
        expire                          | expired available=0 seq=0
        nothing nobody
    """)


def test_a_hold_is_released_at_its_time() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60 ttl=5m           | held 60
        at      4m59s999999us
        expire                          | expired held=60
        at      5m
        expire                          | expired released=1 available=100 held=0
        ledger  GRANT+100
        reservation job EXPIRED released=60 open=0 end=5m
        expire                          | expired
    """)


def test_a_hold_is_charged_at_its_time_if_its_work_had_started() -> None:
    check("""
        grant   gift 100                                   | granted 100
        reserve job 60 ttl=5m on_expiry=charge labels=a:b  | held 60
        at      6m
        expire                                             | expired charged=1 spent=60 held=0
        ledger  GRANT+100 EXPIRY_CHARGE-60
        entry   2 EXPIRY_CHARGE-60 parts=1:60 reservation=job at=6m
        reservation job EXPIRED expiry_charged=60 open=60 captured=0 end=5m
        expire                                             | expired spent=60
    """)


def test_a_charge_at_expiry_leaves_out_what_was_captured() -> None:
    check("""
        grant   gift 100                         | granted 100
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        capture job a 45                         | charged 45 from_hold=45
        at      5m
        expire                                   | expired charged=1
        ledger  GRANT+100 CAPTURE-45 EXPIRY_CHARGE-15
    """)


def test_a_hold_that_captures_have_emptied_has_nothing_to_charge() -> None:
    check("""
        grant   gift 100                         | granted 100
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        capture job a 70                         | charged 70 from_hold=60 overage=10
        at      5m
        expire                                   | expired charged=1
        ledger  GRANT+100 CAPTURE-70
        reservation job EXPIRED captured=70 expiry_charged=0
    """)


def test_captures_alone_never_charge_the_rest() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60 ttl=5m           | held 60
        capture job a 20                | charged 20 from_hold=20
        at      5m
        expire                          | expired released=1 spent=20 available=80
    """)


def test_the_held_part_outlives_its_lot() -> None:
    check("""
        grant   gift 100 expires=2m     | granted 100
        reserve job 60 ttl=5m           | held 60
        at      3m
        expire                          | expired lots=1 expired=40 held=60 available=0
        lots    1:0/60
        extend  job ttl=10m             | holds 60 until=13m
        at      12m
        settle  job 60                  | charged 60 from_hold=60
        ledger  GRANT+100 EXPIRY-40 CAPTURE-60
    """)


def test_the_held_part_expires_when_it_returns() -> None:
    check("""
        grant   gift 100 expires=2m     | granted 100
        reserve job 60 ttl=5m           | held 60
        at      3m
        expire                          | expired lots=1 expired=40
        at      5m
        expire                          | expired released=1 expired=100
        ledger  GRANT+100 EXPIRY-40 EXPIRY-60
        entry   3 EXPIRY-60 parts=1:60 reservation=job related=1 at=5m
        expire                          | expired
    """)


def test_swept_late_is_as_swept_on_time() -> None:
    """The lot ends at 2 min, the hold at 5: nobody came by before an hour."""
    check("""
        grant   gift 100 expires=2m     | granted 100
        reserve job 60 ttl=5m           | held 60
        at      1h
        expire                          | expired lots=1 released=1 expired=100 held=0
        ledger  GRANT+100 EXPIRY-40 EXPIRY-60
        entry   2 EXPIRY-40 reservation=
        entry   3 EXPIRY-60 reservation=job
        reservation job EXPIRED end=5m
    """)


def test_a_hold_that_ended_before_its_lot_returns_to_it_and_expires_with_it() -> None:
    check("""
        grant   gift 100 expires=10m    | granted 100
        reserve job 60 ttl=5m           | held 60
        at      1h
        expire                          | expired lots=1 released=1 expired=100
        ledger  GRANT+100 EXPIRY-100
        entry   2 EXPIRY-100 reservation=
    """)


def test_of_one_instant_the_hold_ends_before_the_lot() -> None:
    check("""
        grant   gift 100 expires=5m     | granted 100
        reserve job 60 ttl=5m           | held 60
        at      5m
        expire                          | expired lots=1 released=1 expired=100
        ledger  GRANT+100 EXPIRY-60 EXPIRY-40
    """)


def test_a_credit_released_in_time_pays_for_a_later_charge() -> None:
    """`early` frees its lot at 2 min, so that at 3 min `late` pays what it held on credit."""
    check("""
        credit  100 holds
        grant   gift 60                          | granted 60
        reserve early 60 ttl=2m                  | held 60
        reserve late 50 ttl=3m on_expiry=charge  | held 50 available=-50
        at      1h
        expire                                   | expired released=1 charged=1
        entry   2 EXPIRY_CHARGE-50 parts=1:50
        balance available=10 debt=0
        lots    1:10
    """)


def test_a_credit_released_too_late_does_not() -> None:
    check("""
        credit  100 holds
        grant   gift 60                           | granted 60
        reserve late 60 ttl=3m                    | held 60
        reserve early 50 ttl=2m on_expiry=charge  | held 50 available=-50
        at      1h
        expire                                    | expired released=1 charged=1
        entry   2 EXPIRY_CHARGE-50 parts=
        balance available=10 debt=0
    """)


def test_every_operation_lets_things_expire_first() -> None:
    for operation in (
        "grant   more 10     | granted 10",
        "reserve two 1       | refused INSUFFICIENT_CREDITS",
        "settle  two 1       | refused RESERVATION_NOT_FOUND",
        "release two         | refused RESERVATION_NOT_FOUND",
        "extend  two ttl=1m  | refused RESERVATION_NOT_FOUND",
        "debit   1           | refused INSUFFICIENT_CREDITS",
        "debit_once key 1    | refused INSUFFICIENT_CREDITS",
    ):
        check(f"""
            grant   gift 100 expires=10m     | granted 100
            reserve job 60 ttl=5m            | held 60
            at      10m
            {operation}
            reservation job EXPIRED
            balance expired=100 held=0
        """)


def test_what_is_due_in_one_account_waits_for_an_operation_on_that_account() -> None:
    check("""
        grant   gift 100 expires=5m     | granted 100
        account bob
        grant   other 100 expires=5m    | granted 100
        at      5m
        expire                          | expired lots=1
        account alice
        balance expired=0
        expire                          | expired lots=1
    """)


def test_the_next_expiry_is_known_exactly_after_each() -> None:
    book = check("""
        grant   a 10 expires=10m        | granted 10
        grant   b 10 expires=20m        | granted 10
        reserve job 5 ttl=15m           | held 5
        at      10m
        expire                          | expired lots=1
    """)
    for minutes in (15, 20):
        assert book.account().next_expire_time == START + timedelta(minutes=minutes)
        book.now = START + timedelta(minutes=minutes)
        book.do(expire())
    assert book.account().next_expire_time is None
