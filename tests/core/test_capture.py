"""Capture: charging a hold in parts while it stays open for the rest."""

from __future__ import annotations

from .table import check


def test_many_captures_then_a_settle() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve job 60        | held 60
        capture job a 20      | charged 20 from_hold=20 held=40 available=40 spent=20
        capture job b 10      | charged 10 from_hold=10 held=30 available=40 spent=30
        reservation job ACTIVE reserved=60 open=30 captured=30 from_hold=30
        settle  job 5         | charged 5 from_hold=5 released=25
        reservation job SETTLED open=0 captured=35 from_hold=35 released=25
        ledger  GRANT+100 CAPTURE-20 CAPTURE-10 CAPTURE-5
        entry   2 CAPTURE-20 key=a reservation=job
        balance available=65 held=0 spent=35
    """)


def test_a_capture_past_the_hold_takes_from_the_free_balance_and_leaves_it_empty() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve job 60        | held 60
        capture job a 70      | charged 70 from_hold=60 overage=10
        reservation job ACTIVE open=0 captured=70 from_hold=60
        balance available=30 held=0 spent=70
        capture job b 40      | charged 30 overage=30 shortfall=10
        settle  job 0         | charged 0
        reservation job SETTLED captured=100
    """)


def test_a_capture_of_nothing_is_remembered_and_writes_no_entry() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve job 60        | held 60
        capture job a 0       | charged 0 entry=0
        capture job a 1       | refused IDEMPOTENCY_MISMATCH field=amount_micros original=0
        ledger  GRANT+100
    """)


def test_a_capture_by_overdraft_and_by_reject() -> None:
    check("""
        grant   gift 60                        | granted 60
        reserve job 60                         | held 60
        capture job a 61 overage=reject        | refused INSUFFICIENT_CREDITS available=0 required=1
        capture job a 61 overage=overdraft     | charged 61 from_hold=60 overage=1 debt=1
        capture job b 5 overage=overdraft      | charged 5 overage=5 debt=6
        reservation job ACTIVE open=0 captured=66
    """)


def test_captures_stay_charged_when_the_hold_is_released() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve job 60        | held 60
        capture job a 20      | charged 20 from_hold=20
        release job           | released available=80 held=0 spent=20
        reservation job RELEASED captured=20 released=40
    """)


def test_a_capture_id_is_unique_in_its_reservation_only() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve one 20        | held 20
        reserve two 20        | held 20
        capture one a 20      | charged 20 from_hold=20
        capture two a 10      | charged 10 from_hold=10
        balance spent=30
    """)


def test_a_capture_and_the_settle_are_two_charges_of_equal_amount() -> None:
    check("""
        grant   gift 100      | granted 100
        reserve job 60        | held 60
        capture job a 20      | charged 20 from_hold=20
        settle  job 20        | charged 20 from_hold=20 released=20
        balance spent=40
    """)
