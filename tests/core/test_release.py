"""Release: ending a hold without a charge, as often as one likes."""

from __future__ import annotations

from .table import check


def test_the_hold_returns_to_its_lots() -> None:
    check("""
        grant   paid 60               | granted 60
        grant   gift 30 priority=10   | granted 30
        reserve job 50 ttl=5m         | held 50
        at      1m
        release job                   | released available=90 held=0 seq=2
        lots    2:30 1:60
        ledger  GRANT+60 GRANT+30
        reservation job RELEASED released=50 open=0 end=1m
    """)


def test_again_says_how_it_ended() -> None:
    check("""
        grant   gift 100     | granted 100
        reserve job 50       | held 50
        release job          | released
        release job          | unchanged RELEASED available=100
        ledger  GRANT+100
    """)


def test_of_a_settled_one_changes_nothing() -> None:
    check("""
        grant   gift 100     | granted 100
        reserve job 50       | held 50
        settle  job 20       | charged 20 from_hold=20 released=30
        release job          | unchanged SETTLED available=80 spent=20
        reservation job SETTLED captured=20
    """)


def test_of_an_expired_one_changes_nothing_and_keeps_the_late_settle_possible() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 50 ttl=5m                   | held 50
        reserve run 50 ttl=5m on_expiry=charge  | held 50
        at      5m
        release job                             | unchanged EXPIRED available=50 held=0 spent=50
        release run                             | unchanged EXPIRED available=50
        settle  job 20                          | charged 20 overage=20 late
        settle  run 20                          | charged 20 from_hold=20 released=30 late
    """)


def test_of_an_unknown_one_or_an_unknown_account() -> None:
    check("""
        grant   gift 100     | granted 100
        release job          | refused RESERVATION_NOT_FOUND reservation_id=job
        account nobody
        release job          | refused RESERVATION_NOT_FOUND reservation_id=job
        nothing nobody
    """)


def test_what_returns_to_an_expired_lot_expires_at_once() -> None:
    check("""
        grant   gift 100 expires=2m  | granted 100
        grant   paid 10              | granted 10
        reserve job 105 ttl=5m       | held 105
        at      3m
        release job                  | released available=10 held=0 expired=100
        ledger  GRANT+100 GRANT+10 EXPIRY-100
        entry   3 EXPIRY-100 parts=1:100 reservation=job related=1 at=3m
    """)


def test_what_returns_repays_debt_first() -> None:
    check("""
        grant   gift 100                 | granted 100
        reserve job 60                   | held 60
        debit   70 overage=overdraft     | debited 70 debt=30
        release job                      | released available=30 debt=0
        lots    1:30
    """)


def test_of_a_hold_that_captures_have_emptied() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve job 60        | held 60
        capture job a 60      | charged 60 from_hold=60
        release job           | released available=40
        reservation job RELEASED captured=60 released=0
    """)
