"""Settle: where a charge comes from, what becomes of the rest, and what if there is too little."""

from __future__ import annotations

from .table import check


def test_less_than_held_returns_the_rest() -> None:
    check("""
        grant   gift 100  | granted 100
        reserve job 60    | held 60
        settle  job 25    | charged 25 from_hold=25 released=35 entry=2 available=75 held=0 spent=25
        ledger  GRANT+100 CAPTURE-25
        entry   2 CAPTURE-25 parts=1:25 reservation=job key=
        lots    1:75
        reservation job SETTLED reserved=60 open=0 captured=25 from_hold=25 released=35
    """)


def test_exactly_what_is_held() -> None:
    check("""
        grant   gift 100  | granted 100
        reserve job 60    | held 60
        settle  job 60    | charged 60 from_hold=60
        balance available=40 held=0 spent=60 remaining=40
    """)


def test_zero_closes_without_a_charge() -> None:
    check("""
        grant   gift 100  | granted 100
        reserve job 60    | held 60
        settle  job 0     | charged 0 released=60 entry=0
        balance available=100 held=0 spent=0
        ledger  GRANT+100
        reservation job SETTLED captured=0 released=60
    """)


def test_more_than_held_takes_from_the_free_balance() -> None:
    check("""
        grant   gift 100  | granted 100
        reserve job 60    | held 60
        settle  job 70    | charged 70 from_hold=60 overage=10
        balance available=30 spent=70
        ledger  GRANT+100 CAPTURE-70
    """)


def test_more_than_held_never_takes_from_another_hold() -> None:
    check("""
        grant   gift 100                  | granted 100
        reserve other 40                  | held 40
        reserve job 50                    | held 50
        settle  job 90 overage=reject     | refused INSUFFICIENT_CREDITS available=10 required=40
        settle  job 90                    | charged 60 from_hold=50 overage=10 shortfall=30
        balance available=0 held=40 spent=60
        settle  other 40                  | charged 40 from_hold=40
    """)


def test_cap_charges_what_there_is_and_tells_the_shortfall() -> None:
    check("""
        grant   gift 100  | granted 100
        reserve job 60    | held 60
        settle  job 130   | charged 100 from_hold=60 overage=40 shortfall=30
        balance available=0 spent=100 debt=0
        reservation job SETTLED captured=100 from_hold=60
    """)


def test_cap_on_an_empty_balance_takes_the_hold_only() -> None:
    check("""
        grant   gift 60   | granted 60
        reserve job 60    | held 60
        settle  job 61    | charged 60 from_hold=60 shortfall=1
    """)


def test_overdraft_goes_into_debt() -> None:
    check("""
        grant   gift 100                    | granted 100
        reserve job 60                      | held 60
        settle  job 130 overage=overdraft   | charged 130 from_hold=60 overage=70
        balance available=-30 spent=130 debt=30 remaining=-30
        entry   2 CAPTURE-130 parts=1:60,1:40
        reserve next 1                      | refused INSUFFICIENT_CREDITS available=-30
    """)


def test_reject_keeps_the_hold() -> None:
    check("""
        grant   gift 100                 | granted 100
        reserve job 60 ttl=5m            | held 60
        settle  job 101 overage=reject   | refused INSUFFICIENT_CREDITS available=40 required=41
        reservation job ACTIVE open=60 until=5m
        balance available=40 held=60 spent=0
        settle  job 100 overage=reject   | charged 100 from_hold=60 overage=40
    """)


def test_the_holds_own_lots_are_charged_before_better_ones_that_came_later() -> None:
    check("""
        grant   paid 60              | granted 60
        reserve job 60               | held 60
        grant   gift 60 priority=10  | granted 60
        settle  job 70               | charged 70 from_hold=60 overage=10
        entry   3 CAPTURE-70 parts=1:60,2:10
        lots    2:50
    """)


def test_a_partial_charge_takes_the_holds_lots_in_spend_order() -> None:
    check("""
        grant   paid 60             | granted 60
        grant   gift 30 priority=1  | granted 30
        reserve job 80              | held 80
        settle  job 40              | charged 40 from_hold=40 released=40
        entry   3 CAPTURE-40 parts=2:30,1:10
        lots    1:50
    """)


def test_what_returns_to_an_expired_lot_expires_at_once_as_its_own_entry() -> None:
    check("""
        grant   gift 100 expires=2m  | granted 100
        reserve job 60 ttl=5m        | held 60
        at      3m
        settle  job 25               | charged 25 from_hold=25 released=35 entry=3 available=0 seq=4
        ledger  GRANT+100 EXPIRY-40 CAPTURE-25 EXPIRY-35
        entry   4 EXPIRY-35 parts=1:35 reservation=job related=1
        balance available=0 held=0 spent=25 expired=75 remaining=0
    """)


def test_what_returns_repays_debt_first() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60                  | held 60
        debit   70 overage=overdraft    | debited 70 debt=30 available=-30
        settle  job 20                  | charged 20 from_hold=20 released=40 debt=0 available=10
        lots    1:10
    """)


def test_settling_closes_the_reservation() -> None:
    check("""
        grant   gift 100           | granted 100
        reserve job 60 ttl=5m      | held 60
        at      2m
        settle  job 25             | charged 25 from_hold=25 released=35
        reservation job SETTLED end=2m until=5m
        at      6m
        expire                     | expired
        reservation job SETTLED end=2m until=5m
    """)


def test_usage_and_labels_stand_in_the_entry() -> None:
    book = check("""
        grant   gift 100                                        | granted 100
        reserve job 60 labels=key:k1                            | held 60
        settle  job 60 usage=model:m labels=run:r metadata={}   | charged 60 from_hold=60
    """)
    entry = book.ledger()[-1]
    assert (entry.usage, entry.labels, entry.metadata) == ({"model": "m"}, {"run": "r"}, "{}")
