"""RefundCharge: back into the very lots, newest first, and never more than was charged."""

from __future__ import annotations

import pytest

from .table import check


def test_a_charge_goes_back_to_its_lots_last_taken_first() -> None:
    check("""
        grant   a 100                   | granted 100
        grant   b 100                   | granted 100
        grant   c 100                   | granted 100
        debit   250                     | debited 250 entry=4
        lots    3:50
        refund  r1 4 70                 | refunded 70 total=70 entry=5 available=120
        lots    2:20 3:100
        entry   5 REFUND+70 parts=2:20,3:50 related=4 key=r1
        refund  r2 4 100                | refunded 100 total=170
        lots    1:20 2:100 3:100
        refund  r3 4                    | refunded 80 total=250 available=300
        lots    1:100 2:100 3:100
        balance spent=250 refunded=250 available=300 remaining=300
    """)


def test_never_more_than_was_charged_over_all_refunds() -> None:
    check("""
        grant   a 100                   | granted 100
        debit   60                      | debited 60 entry=2
        refund  r1 2 61                 | refused REFUND_EXCEEDS_CHARGE refundable=60
        refund  r1 2 50                 | refunded 50
        refund  r2 2 11                 | refused REFUND_EXCEEDS_CHARGE refundable=10
        refund  r2 2                    | refunded 10 total=60
        refund  r3 2                    | refused REFUND_EXCEEDS_CHARGE refundable=0
        refund  r3 2 1                  | refused REFUND_EXCEEDS_CHARGE refundable=0
        balance available=100 refunded=60
    """)


def test_a_refund_is_made_once_for_its_key() -> None:
    check("""
        grant   a 100                   | granted 100
        debit   60                      | debited 60 entry=2
        refund  r1 2 50                 | refunded 50 total=50 available=90
        debit   90                      | debited 90
        refund  r1 2 50                 | refunded 50 total=50 available=90 replayed
        refund  r1 2 49                 | refused IDEMPOTENCY_MISMATCH field=amount_micros
        refund  r1 4 50                 | refused IDEMPOTENCY_MISMATCH field=charge_seq original=2
        account bob
        refund  r1 2 50                 | refused IDEMPOTENCY_MISMATCH field=account original=alice
    """)


def test_debits_and_captures_can_be_refunded_and_nothing_else() -> None:
    check("""
        refund  r1 1                    | refused ENTRY_NOT_FOUND seq=1
        grant   a 100                   | granted 100
        refund  r1 1                    | refused INVALID_FIELD field=charge
        refund  r1 2                    | refused ENTRY_NOT_FOUND seq=2
        reserve job 60 ttl=5m on_expiry=charge | held 60
        capture job one 20              | charged 20 from_hold=20 entry=2
        refund  r1 2 5                  | refunded 5 total=5 available=45
        settle  job 30                  | charged 30 from_hold=30 released=10 entry=4
        refund  r2 4                    | refunded 30 available=85
        reserve due 10 ttl=5m on_expiry=charge | held 10
        at      5m
        expire                          | expired charged=1
        refund  r3 6                    | refused INVALID_FIELD
        refund  r3 5                    | refused INVALID_FIELD
        debit_once key 5                | debited 5 entry=7
        refund  r3 7                    | refunded 5
    """)


@pytest.mark.parametrize("grace", ["", "grace=1h"])
def test_a_lot_that_lives_takes_it_back_whatever_the_grace(grace: str) -> None:
    check(f"""
        grant   a 100 expires=1d        | granted 100
        debit   60                      | debited 60
        refund  r1 2 {grace}            | refunded 60
        lots    1:100
        at      1d
        expire                          | expired lots=1
        balance expired=100 available=0
    """)


def test_what_falls_into_an_expired_lot_expires_at_once() -> None:
    check("""
        grant   a 100 expires=1h        | granted 100
        grant   b 100                   | granted 100
        debit   150                     | debited 150 entry=3
        at      1h
        refund  r1 3                    | refunded 150 available=100
        lots    2:100
        ledger  GRANT+100 GRANT+100 DEBIT-150 REFUND+150 EXPIRY-100
        balance refunded=150 expired=100 available=100
    """)


def test_or_lives_for_the_grace_time_that_was_asked_for() -> None:
    check("""
        grant   a 100 expires=1h priority=10 category=promotional | granted 100
        grant   b 100                   | granted 100
        debit   150                     | debited 150 entry=3
        at      1h
        refund  r1 3 grace=30m          | refunded 150 total=150 entry=4 available=200
        lots    5:100 2:100
        entry   4 REFUND+50 parts=2:50 related=3 key=r1
        entry   5 REFUND+100 parts=5:100 related=3 key=r1
        debit   10                      | debited 10
        lots    5:90 2:100
        at      1h30m
        expire                          | expired lots=1
        balance expired=90 available=100
    """)


def test_a_refund_all_of_expired_lots_is_one_entry() -> None:
    check("""
        grant   a 100 expires=1h        | granted 100
        debit   60                      | debited 60 entry=2
        at      1h
        refund  r1 2 40 grace=1d        | refunded 40 total=40 entry=4
        lots    4:40
        refund  r2 2 grace=1d           | refunded 20 total=60 entry=5
        ledger  GRANT+100 DEBIT-60 EXPIRY-40 REFUND+40 REFUND+20
    """)


def test_what_was_owed_is_given_back_first_and_reduces_the_debt() -> None:
    check("""
        grant   a 100                   | granted 100
        debit   150 overage=overdraft   | debited 150 debt=50
        refund  r1 2 30                 | refunded 30 debt=20 available=-20
        refund  r2 2 40                 | refunded 40 debt=0 available=20
        lots    1:20
    """)


def test_debt_that_a_grant_has_repaid_opens_a_lot_of_its_own() -> None:
    check("""
        grant   a 100                   | granted 100
        debit   150 overage=overdraft   | debited 150 debt=50
        grant   b 60                    | granted 60 repaid=50 available=10
        refund  r1 2 50                 | refunded 50 entry=4 available=60
        lots    3:10 4:50
    """)


def test_a_refund_repays_other_debt_first() -> None:
    check("""
        grant   a 100                   | granted 100
        debit   100                     | debited 100 entry=2
        debit   30 overage=overdraft    | debited 30 debt=30
        refund  r1 2                    | refunded 100 available=70 debt=0
        lots    1:70
    """)


def test_a_frozen_account_may_be_given_back_to() -> None:
    check("""
        grant   a 100                   | granted 100
        debit   60                      | debited 60
        configure frozen=yes            | configured frozen=yes
        refund  r1 2                    | refunded 60
    """)
