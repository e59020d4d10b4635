"""Settle after expiry: accepted for the grace time, and never charging twice."""

from __future__ import annotations

from datetime import timedelta

from meterhold_server.core.model import LotCategory, Rules

from .book import START
from .table import check


def test_after_a_release_by_expiry_it_is_an_overage_with_an_empty_hold() -> None:
    check("""
        grant   gift 100 expires=1h priority=50   | granted 100
        reserve job 60 ttl=5m                     | held 60
        at      6m
        settle  job 70                            | charged 70 overage=70 late
        balance available=30 held=0 spent=70
        reservation job SETTLED late captured=70 from_hold=0 released=60 end=6m
        ledger  GRANT+100 CAPTURE-70
    """)


def test_the_instant_of_expiry_is_late() -> None:
    check("""
        grant   gift 100           | granted 100
        reserve on_time 10 ttl=5m  | held 10
        reserve job 10 ttl=5m      | held 10
        at      4m59s999999us
        settle  on_time 10         | charged 10 from_hold=10
        at      5m
        settle  job 10             | charged 10 overage=10 late
    """)


def test_swept_before_or_not_makes_no_difference() -> None:
    check("""
        grant   gift 100           | granted 100
        reserve job 60 ttl=5m      | held 60
        at      6m
        expire                     | expired released=1
        settle  job 70             | charged 70 overage=70 late
        balance available=30 held=0 spent=70
    """)


def test_the_grace_time_ends_to_the_microsecond() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60 ttl=5m           | held 60
        reserve other 40 ttl=5m         | held 40
        at      1d4m59s999999us
        settle  job 10                  | charged 10 overage=10 late
        at      1d5m
        settle  other 10                | refused RESERVATION_EXPIRED end_time=5m
        capture other a 10              | refused RESERVATION_EXPIRED
        settle  job 10                  | charged 10 overage=10 late replayed
    """)


def test_the_grace_time_is_a_setting() -> None:
    check(
        """
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        at      6m
        settle  job 10            | refused RESERVATION_EXPIRED end_time=5m
        """,
        Rules(settle_grace=timedelta(seconds=60)),
    )


def test_late_by_cap() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        at      6m
        debit   70                | debited 70
        settle  job 60            | charged 30 overage=30 shortfall=30 late
        balance available=0 spent=100 debt=0
    """)


def test_late_by_cap_with_nothing_left_charges_nothing() -> None:
    check("""
        grant   gift 60 expires=2m  | granted 60
        reserve job 60 ttl=5m       | held 60
        at      6m
        settle  job 60              | charged 0 shortfall=60 late entry=0
        ledger  GRANT+60 EXPIRY-60
        reservation job SETTLED late captured=0 released=60
    """)


def test_late_by_overdraft() -> None:
    check("""
        grant   gift 100                    | granted 100
        reserve job 60 ttl=5m               | held 60
        at      6m
        debit   70                          | debited 70
        settle  job 60 overage=overdraft    | charged 60 overage=60 late
        balance available=-30 spent=130 debt=30
    """)


def test_late_by_reject_can_be_tried_again() -> None:
    check("""
        grant   gift 100                  | granted 100
        reserve job 60 ttl=5m             | held 60
        at      6m
        debit   70                        | debited 70
        settle  job 60 overage=reject     | refused INSUFFICIENT_CREDITS available=30 required=60
        reservation job EXPIRED captured=0
        grant   more 30                   | granted 30
        settle  job 60 overage=reject     | charged 60 overage=60 late
    """)


def test_late_captures_leave_it_expired_until_the_settle() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        capture job a 10          | charged 10 from_hold=10
        at      6m
        capture job b 20          | charged 20 overage=20 late
        reservation job EXPIRED captured=30 from_hold=10 released=50
        settle  job 5             | charged 5 overage=5 late
        reservation job SETTLED late captured=35 from_hold=10 released=50
        balance available=65 spent=35
    """)


def test_true_up_to_less_refunds_the_difference() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        at      6m
        expire                                  | expired charged=1 available=40 spent=60
        settle  job 45                          | charged 45 from_hold=45 released=15 late entry=0
        ledger  GRANT+100 EXPIRY_CHARGE-60 REFUND+15
        entry   3 REFUND+15 parts=1:15 reservation=job related=2 at=6m
        balance available=55 spent=60 refunded=15 remaining=55
        reservation job SETTLED late captured=0 expiry_charged=45 released=15
    """)


def test_true_up_to_nothing_refunds_it_all() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        at      6m
        settle  job 0                           | charged 0 released=60 late
        balance available=100 spent=60 refunded=60
    """)


def test_true_up_to_the_same_changes_nothing() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        at      6m
        settle  job 60                          | charged 60 from_hold=60 late entry=0
        ledger  GRANT+100 EXPIRY_CHARGE-60
        reservation job SETTLED late expiry_charged=60
    """)


def test_true_up_to_more_charges_the_difference() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        at      6m
        settle  job 75                          | charged 75 from_hold=60 overage=15 late entry=3
        ledger  GRANT+100 EXPIRY_CHARGE-60 CAPTURE-15
        entry   3 CAPTURE-15 parts=1:15 reservation=job
        balance available=25 spent=75
        reservation job SETTLED late captured=15 expiry_charged=60
    """)


def test_true_up_past_the_balance_by_each_overage() -> None:
    check("""
        grant   gift 60                          | granted 60
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        at      6m
        settle  job 75 overage=reject            | refused INSUFFICIENT_CREDITS required=15
        settle  job 75                           | charged 60 from_hold=60 shortfall=15 late
    """)
    check("""
        grant   gift 60                          | granted 60
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        at      6m
        settle  job 75 overage=overdraft         | charged 75 from_hold=60 overage=15 late
        balance available=-15 debt=15 spent=75
    """)


def test_late_captures_use_up_the_expirys_charge_before_the_free_balance() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        at      6m
        capture job a 40                        | charged 40 from_hold=40 late entry=0
        reservation job EXPIRED open=20 captured=0 expiry_charged=60
        capture job b 30                        | charged 30 from_hold=20 overage=10 late entry=3
        reservation job EXPIRED open=0 captured=10 expiry_charged=60
        settle  job 0                           | charged 0 late
        balance available=30 spent=70 refunded=0
    """)


def test_late_captures_then_a_settle_that_gives_back() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        at      6m
        capture job a 40                        | charged 40 from_hold=40 late
        settle  job 5                           | charged 5 from_hold=5 released=15 late
        ledger  GRANT+100 EXPIRY_CHARGE-60 REFUND+15
        reservation job SETTLED late expiry_charged=45 released=15
    """)


def test_an_expirys_charge_does_not_count_what_was_captured_before() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        capture job a 20                        | charged 20 from_hold=20
        at      6m
        settle  job 30                          | charged 30 from_hold=30 released=10 late
        ledger  GRANT+100 CAPTURE-20 EXPIRY_CHARGE-40 REFUND+10
        reservation job SETTLED late captured=20 from_hold=20 expiry_charged=30 released=10
    """)


def test_a_refund_returns_to_the_lots_it_came_from_last_taken_first() -> None:
    check("""
        grant   paid 50                          | granted 50
        grant   gift 50 priority=10              | granted 50
        reserve job 80 ttl=5m on_expiry=charge   | held 80
        at      6m
        settle  job 60                           | charged 60 from_hold=60 released=20 late
        lots    1:40
        entry   4 REFUND+20 parts=1:20
    """)


def test_a_refund_into_a_lot_that_has_expired_meanwhile_expires_at_once() -> None:
    check("""
        grant   gift 60 expires=10m              | granted 60
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        at      6m
        expire                                   | expired charged=1
        at      10m
        settle  job 45                           | charged 45 from_hold=45 released=15 late
        ledger  GRANT+60 EXPIRY_CHARGE-60 REFUND+15 EXPIRY-15
        entry   4 EXPIRY-15 parts=1:15 reservation=job related=1
        balance available=0 remaining=0 refunded=15 expired=15
    """)


def test_a_refund_repays_debt_first() -> None:
    check("""
        grant   gift 60                          | granted 60
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        at      6m
        debit   10 overage=overdraft             | debited 10 debt=10
        settle  job 45                           | charged 45 from_hold=45 released=15 late
        balance available=5 debt=0
        lots    1:5
    """)


def test_of_a_refund_the_lot_that_was_taken_last_repays_the_debt() -> None:
    check("""
        grant   paid 20                          | granted 20
        grant   gift 40 priority=10              | granted 40
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        at      6m
        debit   25 overage=overdraft             | debited 25 debt=25
        settle  job 20                           | charged 20 from_hold=20 released=40 late
        entry   5 REFUND+40 parts=2:20,1:20
        balance available=15 debt=0
        lots    2:15
    """)


def test_a_refund_of_what_was_owed_forgives_the_debt() -> None:
    check("""
        credit  100 holds
        reserve job 60 ttl=5m on_expiry=charge   | held 60 available=-60
        at      6m
        expire                                   | expired charged=1 debt=60 available=-60
        settle  job 45                           | charged 45 from_hold=45 released=15 late
        entry   2 REFUND+15 parts= related=1
        balance available=-45 debt=45
        lots    none
    """)


def test_a_refund_gives_back_what_was_owed_before_what_was_taken_from_lots() -> None:
    check("""
        credit  100 holds
        grant   gift 40                          | granted 40
        reserve job 60 ttl=5m on_expiry=charge   | held 60 available=-20
        at      6m
        settle  job 30                           | charged 30 from_hold=30 released=30 late
        ledger  GRANT+40 EXPIRY_CHARGE-60 REFUND+30
        entry   2 EXPIRY_CHARGE-60 parts=1:40
        entry   3 REFUND+30 parts=1:10
        balance available=10 debt=0
        lots    1:10
    """)


def test_a_refund_of_debt_that_a_grant_has_repaid_opens_a_lot_of_its_own() -> None:
    book = check("""
        credit  100 holds
        reserve job 60 ttl=5m on_expiry=charge       | held 60
        at      6m
        grant   gift 80 expires=1h priority=10       | granted 80 repaid=60
        lots    2:20
        settle  job 45                               | charged 45 from_hold=45 released=15 late
        ledger  EXPIRY_CHARGE-60 GRANT+80 REFUND+15
        lots    2:20 3:15
        balance available=35 debt=0 refunded=15
        at      1h
        expire                                       | expired lots=1
        lots    3:15
    """)
    lot = book.account().lots[-1]
    assert (lot.granted_micros, lot.category, lot.priority) == (15, LotCategory.PAID, 50)
    assert (lot.create_time, lot.expire_time) == (START + timedelta(minutes=6), None)


def test_a_refund_of_debt_that_was_partly_repaid_forgives_the_rest_first() -> None:
    check("""
        credit  100 holds
        reserve job 60 ttl=5m on_expiry=charge       | held 60
        at      6m
        grant   gift 50                              | granted 50 repaid=50 debt=10
        settle  job 20                               | charged 20 from_hold=20 released=40 late
        balance available=30 debt=0
        lots    3:30
    """)


def test_a_debt_paid_at_expiry_out_of_a_later_grant_returns_to_that_lot() -> None:
    check("""
        credit  100 holds
        reserve job 60 ttl=5m on_expiry=charge       | held 60
        grant   gift 80                              | granted 80 available=20
        at      6m
        settle  job 45                               | charged 45 from_hold=45 released=15 late
        entry   2 EXPIRY_CHARGE-60 parts=1:60
        entry   3 REFUND+15 parts=1:15
        lots    1:35
    """)
