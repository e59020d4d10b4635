"""GrantOnce: lots, their spend order, debt repaid first, and every key of a grant naming it."""

from __future__ import annotations

import pytest

from meterhold_server.core.model import LotCategory

from .table import check


def test_the_first_grant_creates_the_account() -> None:
    check("""
        nothing alice
        grant   gift 100 reason=hello   | granted 100 entry=1 available=100 seq=1
        lots    1:100
        entry   1 GRANT+100 key=gift parts=1:100
        balance granted=100 remaining=100 spent=0
    """)


@pytest.mark.parametrize(
    ("sooner", "later"),
    [
        pytest.param("priority=10", "priority=50", id="priority ascending"),
        pytest.param("priority=49 category=paid", "expires=1m category=promotional", id="first"),
        pytest.param("priority=0", "priority=1", id="from zero"),
        pytest.param("expires=1h", "expires=2h", id="earliest expiry"),
        pytest.param("expires=365d", "", id="no expiry last"),
        pytest.param(
            "expires=1h category=paid", "expires=2h category=promotional", id="before category"
        ),
        pytest.param("category=promotional", "category=paid", id="promotional before paid"),
        pytest.param(
            "expires=1h category=promotional", "expires=1h category=paid", id="of one expiry"
        ),
    ],
)
def test_spend_order(sooner: str, later: str) -> None:
    check(f"""
        grant   sooner 10 {sooner}   | granted 10
        grant   later 10 {later}     | granted 10
        lots    1:10 2:10
        debit   15                   | debited 15
        lots    2:5
    """)
    check(f"""
        grant   later 10 {later}     | granted 10
        grant   sooner 10 {sooner}   | granted 10
        lots    2:10 1:10
        reserve job 15               | held 15
        lots    2:0/10 1:5/5
    """)


def test_of_equal_lots_the_oldest_is_spent_first() -> None:
    check("""
        grant   one 10     | granted 10
        grant   two 10     | granted 10
        debit   15         | debited 15
        lots    2:5
    """)


def test_debt_is_repaid_first() -> None:
    check("""
        grant   a 10                        | granted 10
        debit   40 overage=overdraft        | debited 40 debt=30
        grant   b 20                        | granted 20 repaid=20 debt=10 available=-10
        lots    none
        grant   c 20 expires=1h             | granted 20 repaid=10 debt=0 available=10
        lots    4:10
        entry   4 GRANT+20 parts=4:10
        balance granted=50 spent=40 remaining=10
    """)


def test_an_expiry_must_be_in_the_future_by_the_databases_clock() -> None:
    check("""
        at      5m
        grant   a 10 expires=4m             | refused INVALID_FIELD field=expire_time
        grant   a 10 expires=5m             | refused INVALID_FIELD field=expire_time
        nothing alice
        grant   a 10 expires=5m1us          | granted 10
    """)


def test_annotations_stand_in_the_lot() -> None:
    book = check("""
        grant gift 10 category=promotional priority=7 cash=currency:EUR source=order:o | granted 10
    """)
    (lot,) = book.account().lots
    assert (lot.cash, lot.source) == ({"currency": "EUR"}, {"order": "o"})
    assert (lot.category, lot.priority) == (LotCategory.PROMOTIONAL, 7)
    assert lot.idempotency_key == "gift"


def test_a_grant_made_under_a_legacy_key_is_not_made_again() -> None:
    check("""
        grant   old 100                         | granted 100
        debit   10                              | debited 10
        grant   new 100 legacy=old              | granted 100 entry=1 replayed available=100 seq=1
        balance granted=100 available=90
        ledger  GRANT+100 DEBIT-10
    """)


def test_any_legacy_key_hits() -> None:
    check("""
        grant   old 100                         | granted 100
        grant   new 100 legacy=older,old        | granted 100 entry=1 replayed
        ledger  GRANT+100
    """)


def test_a_fresh_grant_uses_up_its_legacy_keys_too() -> None:
    check("""
        grant   new 100 legacy=old,older        | granted 100
        grant   old 100                         | granted 100 entry=1 replayed
        grant   older 100                       | granted 100 entry=1 replayed
        grant   newest 100 legacy=older         | granted 100 entry=1 replayed
        ledger  GRANT+100
    """)


def test_a_hit_on_a_legacy_key_uses_up_the_new_key_too() -> None:
    check("""
        grant   old 100                         | granted 100
        grant   new 100 legacy=old,older        | granted 100 entry=1 replayed
        grant   new 100                         | granted 100 entry=1 replayed
        grant   older 100                       | granted 100 entry=1 replayed
        ledger  GRANT+100
    """)


def test_keys_can_be_chained() -> None:
    check("""
        grant   one 100                         | granted 100
        grant   two 100 legacy=one              | granted 100 entry=1 replayed
        grant   three 100 legacy=two            | granted 100 entry=1 replayed
        grant   three 100                       | granted 100 entry=1 replayed
        ledger  GRANT+100
    """)


def test_the_new_key_goes_before_the_legacy_ones() -> None:
    check("""
        grant   one 100                         | granted 100
        grant   two 100                         | granted 100
        grant   two 100 legacy=one              | granted 100 entry=2 replayed
        grant   three 100 legacy=two,one        | granted 100 entry=2 replayed
    """)


def test_under_a_legacy_key_only_account_unit_and_amount_are_compared() -> None:
    check("""
        grant   old 100 reason=sale priority=10           | granted 100
        grant   new 100 legacy=old reason=other           | granted 100 replayed
        grant   new 100 priority=99 expires=1h            | granted 100 replayed
        grant   newer 99 legacy=old         | refused IDEMPOTENCY_MISMATCH original=100
        grant   new 99                      | refused IDEMPOTENCY_MISMATCH original=100
        account bob
        grant   newer 100 legacy=old        | refused IDEMPOTENCY_MISMATCH original=alice
        grant   new 100                     | refused IDEMPOTENCY_MISMATCH original=alice
        account alice unit=tokens
        grant   newer 100 legacy=old        | refused IDEMPOTENCY_MISMATCH original=credits
    """)


def test_a_refused_legacy_hit_uses_up_no_key() -> None:
    check("""
        grant   old 100                     | granted 100
        grant   new 99 legacy=old,older     | refused IDEMPOTENCY_MISMATCH field=amount_micros
        grant   new 99                      | granted 99 entry=2
        grant   older 98                    | granted 98 entry=3
    """)


def test_a_legacy_key_that_repeats_the_new_one_is_harmless() -> None:
    check("""
        grant   key 100 legacy=key,key      | granted 100
        grant   key 100                     | granted 100 replayed
        ledger  GRANT+100
    """)
