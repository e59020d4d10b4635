"""Debit and DebitOnce: charge now, all or nothing."""

from __future__ import annotations

import pytest

from .table import check

both = pytest.mark.parametrize("debit", ["debit", "debit_once key"])


@both
def test_charges_at_once(debit: str) -> None:
    check(f"""
        grant   gift 100   | granted 100
        {debit} 30         | debited 30 entry=2 available=70 spent=30
        ledger  GRANT+100 DEBIT-30
        lots    1:70
    """)


@both
def test_exactly_the_remaining_balance_passes(debit: str) -> None:
    check(f"""
        grant   gift 100   | granted 100
        {debit} 101        | refused INSUFFICIENT_CREDITS available=100 required=101 reservable=100
        {debit} 100        | debited 100 available=0
    """)


@both
def test_takes_the_lots_in_spend_order(debit: str) -> None:
    check(f"""
        grant   paid 30                     | granted 30
        grant   allowance 30 priority=10    | granted 30
        grant   gift 30 expires=1h          | granted 30
        {debit} 70                          | debited 70
        entry   4 DEBIT-70 parts=2:30,3:30,1:10
        lots    1:20
    """)


@both
def test_never_takes_what_is_held(debit: str) -> None:
    check(f"""
        grant   gift 100   | granted 100
        reserve job 60     | held 60
        {debit} 41         | refused INSUFFICIENT_CREDITS available=40
        {debit} 40         | debited 40
    """)


@both
def test_overdraft_records_what_has_happened_even_into_debt(debit: str) -> None:
    check(f"""
        grant   gift 100                 | granted 100
        reserve job 60                   | held 60
        {debit} 90 overage=overdraft     | debited 90 available=-50 debt=50 held=60 remaining=10
        entry   2 DEBIT-90 parts=1:40
        reserve next 1                   | refused INSUFFICIENT_CREDITS available=-50 reservable=0
        settle  job 60                   | charged 60 from_hold=60 debt=50
    """)


@both
def test_an_unknown_account_has_nothing_and_is_not_created(debit: str) -> None:
    check(f"""
        account nobody
        {debit} 1                        | refused INSUFFICIENT_CREDITS available=0 required=1
        {debit} 1 overage=overdraft      | refused INSUFFICIENT_CREDITS available=0 required=1
        nothing nobody
    """)


@both
def test_what_is_due_expires_before(debit: str) -> None:
    check(f"""
        grant   gift 50 expires=5m    | granted 50
        grant   paid 50               | granted 50
        reserve job 60 ttl=5m         | held 60
        at      5m
        {debit} 51                    | refused INSUFFICIENT_CREDITS available=50
        {debit} 50                    | debited 50
        ledger  GRANT+50 GRANT+50 EXPIRY-50 DEBIT-50
    """)


def test_without_an_id_each_debit_counts() -> None:
    check("""
        grant   gift 100   | granted 100
        debit   30         | debited 30
        debit   30         | debited 30
        balance spent=60
    """)


def test_the_key_stands_in_the_entry() -> None:
    check("""
        grant   gift 100              | granted 100
        debit   10 id=request         | debited 10
        debit_once key 10             | debited 10
        debit   10                    | debited 10
        entry   2 DEBIT-10 key=request related=0 reservation=
        entry   3 DEBIT-10 key=key
        entry   4 DEBIT-10 key=
    """)


def test_usage_and_labels_stand_in_the_entry() -> None:
    book = check("""
        grant   gift 100                                   | granted 100
        debit   10 usage=model:m labels=run:r metadata={}  | debited 10
    """)
    entry = book.ledger()[-1]
    assert (entry.usage, entry.labels, entry.metadata) == ({"model": "m"}, {"run": "r"}, "{}")
