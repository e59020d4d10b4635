"""Grants that are made before their effective time: shown, not spendable, and landing once."""

from __future__ import annotations

from .table import check


def test_it_cannot_be_spent_before_its_time() -> None:
    check("""
        grant   later 100 effective=1d       | pending pending=100 available=0 seq=0
        balance granted=0 remaining=0 pending=100
        debit   1                            | refused INSUFFICIENT_CREDITS available=0
        at      1d
        debit   1                            | debited 1
        balance granted=100 pending=0 available=99
        ledger  GRANT+100 DEBIT-1
    """)


def test_a_time_that_has_come_is_now() -> None:
    check("""
        at      1d
        grant   now 100 effective=1d         | granted 100 pending=0
    """)


def test_a_replay_gets_the_first_answer_before_and_after() -> None:
    check("""
        grant   later 100 effective=1d       | pending
        grant   later 100 effective=1d       | pending replayed pending=100
        grant   later 100                    | refused IDEMPOTENCY_MISMATCH field=effective_time
        at      2d
        expire                               | expired landed=1
        grant   later 100 effective=1d       | pending replayed pending=100
        balance available=100
    """)


def test_debt_is_repaid_when_it_lands_and_not_before() -> None:
    check("""
        grant   first 10                     | granted 10
        debit   40 overage=overdraft         | debited 40
        grant   later 100 effective=1d       | pending debt=30
        at      1d
        expire                               | expired landed=1 debt=0 available=70
    """)


def test_it_keeps_its_terms() -> None:
    check("""
        grant   paid 10                      | granted 10
        grant   promo 50 effective=1d expires=3d priority=5 reason=gift   | pending
        at      1d
        debit   20                           | debited 20
        lots    2:30 1:10
        at      3d
        expire                               | expired lots=1
        lots    1:10
    """)


def test_one_that_nobody_saw_lands_and_expires_at_once() -> None:
    check("""
        grant   promo 50 effective=1d expires=2d   | pending
        at      5d
        expire                               | expired landed=1 lots=1 pending=0
        ledger  GRANT+50 EXPIRY-50
    """)


def test_things_happen_in_the_order_of_their_times() -> None:
    """A hold that is charged between two events is charged against what there was then."""
    check("""
        credit  100 holds
        grant   later 100 effective=2d       | pending
        reserve job 60 ttl=1d on_expiry=charge   | held 60
        at      3d
        expire                               | expired charged=1 landed=1 available=40
        ledger  EXPIRY_CHARGE-60 GRANT+100
        lots    2:40
    """)


def test_it_creates_the_account() -> None:
    check("""
        defaults signup=5                    | defaulted
        grant   later 100 effective=1d       | pending available=5
    """)


def test_room_for_it_is_kept() -> None:
    check("""
        grant   later 9_000_000_000_000_000_000 effective=1d   | pending
        grant   more 1                       | refused BALANCE_OUT_OF_RANGE
        at      1d
        expire                               | expired landed=1
    """)


class TestRevocation:
    def test_in_full_keeps_it_from_landing(self) -> None:
        check("""
            grant   later 100 effective=1d     | pending
            revoke  later                      | revoked 100 waiting total=100 pending=0
            revoke  later                      | revoked 0 waiting total=100
            at      2d
            expire                             | expired
            ledger  none
        """)

    def test_in_part_is_taken_when_it_lands(self) -> None:
        check("""
            grant   later 100 effective=1d     | pending
            revoke  later 30                   | revoked 30 waiting total=30 pending=70
            at      1d
            expire                             | expired landed=1 available=70 revoked=30
            ledger  GRANT+100 REVOCATION-30
            revoke  later 50                   | revoked 20 total=50 available=50
            reinstate later                    | reinstated 50 total=0 available=100
        """)

    def test_can_be_undone_before_its_time(self) -> None:
        check("""
            grant   later 100 effective=1d     | pending
            revoke  later                      | revoked 100 waiting
            reinstate later                    | reinstated 100 waiting total=0 pending=100
            revoke  later                      | revoked 0 waiting
            at      1d
            expire                             | expired landed=1 available=100
        """)

    def test_undone_after_its_time_lets_it_land_at_once(self) -> None:
        check("""
            grant   later 100 effective=1d     | pending
            revoke  later                      | revoked 100 waiting
            at      2d
            reinstate later                    | reinstated 100 total=0 entry=1 available=100
        """)

    def test_undone_after_its_expiry_lets_it_expire(self) -> None:
        check("""
            grant   later 100 effective=1d expires=2d   | pending
            revoke  later                      | revoked 100 waiting
            at      3d
            reinstate later                    | reinstated 100 total=0 entry=1 available=0
            ledger  GRANT+100 EXPIRY-100
        """)
