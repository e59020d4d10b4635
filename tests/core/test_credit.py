"""The credit limit: what may use it, and holds that stand on it."""

from __future__ import annotations

from .table import check


def test_debits_may_use_it_to_the_last_micro() -> None:
    check("""
        grant   gift 100                | granted 100
        credit  50
        debit   151                     | refused INSUFFICIENT_CREDITS available=100 required=151
        debit   150                     | debited 150 available=-50 debt=50 limit=50
        debit_once key 1                | refused INSUFFICIENT_CREDITS available=-50
    """)


def test_the_overage_of_a_settle_may_use_it() -> None:
    check("""
        grant   gift 100                | granted 100
        credit  50
        reserve job 100                 | held 100
        settle  job 151 overage=reject  | refused INSUFFICIENT_CREDITS required=51
        settle  job 151                 | charged 150 from_hold=100 overage=50 shortfall=1
        balance available=-50 debt=50 spent=150
    """)


def test_a_late_settle_may_use_it() -> None:
    check("""
        grant   gift 100                | granted 100
        credit  50
        reserve job 100 ttl=5m          | held 100
        at      5m
        settle  job 160                 | charged 150 overage=150 shortfall=10 late
    """)


def test_holds_use_it_only_where_the_account_lets_them() -> None:
    check("""
        grant   gift 100                | granted 100
        credit  50
        reserve job 101                 | refused INSUFFICIENT_CREDITS available=100 reservable=100
        reserve job 150 min=1           | held 100
        release job                     | released
        credit  50 holds
        reserve two 151                 | refused INSUFFICIENT_CREDITS available=100 reservable=150
        reserve two 150                 | held 150 available=-50 held=150 debt=0
        lots    1:0/100
        reservation two ACTIVE open=150 on_credit=50 parts=1:100
        reserve more 1                  | refused INSUFFICIENT_CREDITS available=-50 reservable=0
    """)


def test_growth_uses_it_as_a_new_hold_would() -> None:
    check("""
        grant   gift 100                | granted 100
        credit  50
        reserve job 100                 | held 100
        extend  job add=1 id=a          | refused INSUFFICIENT_CREDITS
        credit  50 holds
        extend  job add=50 id=a         | holds 150 available=-50
        reservation job ACTIVE on_credit=50 parts=1:100
    """)


def test_a_floor_counts_it() -> None:
    check("""
        grant   gift 100                | granted 100
        credit  50 holds
        reserve job 10 floor=151        | refused INSUFFICIENT_CREDITS required=151
        reserve job 10 floor=150        | held 10
    """)


def test_an_account_with_credit_and_nothing_else() -> None:
    check("""
        credit  50 holds
        reserve job 50                  | held 50 available=-50
        settle  job 20                  | charged 20 released=30 from_hold=20 available=-20 debt=20
        ledger  CAPTURE-20
        entry   1 CAPTURE-20 parts=
    """)


def test_held_on_credit_then_granted_then_captured() -> None:
    check("""
        credit  100 holds
        reserve job 50                  | held 50 available=-50
        grant   gift 80                 | granted 80 available=30 held=50
        reservation job ACTIVE on_credit=50 parts=
        lots    1:80
        debit   131                     | refused INSUFFICIENT_CREDITS available=30
        capture job a 20                | charged 20 from_hold=20 available=30 held=30 debt=0
        lots    1:60
        settle  job 30                  | charged 30 from_hold=30 available=30 held=0 debt=0
        lots    1:30
    """)


def test_held_on_credit_then_released_costs_nothing() -> None:
    check("""
        credit  100 holds
        grant   gift 20                 | granted 20
        reserve job 50                  | held 50 available=-30
        grant   more 10                 | granted 10 available=-20
        release job                     | released available=30 held=0 debt=0
        lots    1:20 2:10
    """)


def test_a_partial_charge_takes_the_lots_before_the_credit() -> None:
    check("""
        credit  100 holds
        grant   gift 20                 | granted 20
        reserve job 50                  | held 50
        capture job a 25                | charged 25 from_hold=25 available=-30 debt=5 held=25
        reservation job ACTIVE open=25 on_credit=25 parts=
    """)


def test_a_hold_on_credit_that_expires_charged_is_owed() -> None:
    check("""
        credit  100 holds
        grant   gift 20                          | granted 20
        reserve job 50 ttl=5m on_expiry=charge   | held 50 available=-30
        at      5m
        expire                                   | expired charged=1 debt=30 available=-30 held=0
        entry   2 EXPIRY_CHARGE-50 parts=1:20
    """)


def test_a_limit_that_was_lowered_takes_nothing_back() -> None:
    check("""
        credit  100 holds
        reserve job 80                  | held 80
        credit  0
        debit   1                       | refused INSUFFICIENT_CREDITS available=-80
        settle  job 90                  | charged 80 from_hold=80 shortfall=10 debt=80
    """)


def test_overdraft_does_not_mind_the_limit() -> None:
    check("""
        grant   gift 10                 | granted 10
        credit  5
        debit   100 overage=overdraft   | debited 100 debt=90
    """)
