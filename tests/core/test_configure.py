"""Configure: what an account may do, and what a frozen one still does."""

from __future__ import annotations

from .table import check


def test_what_is_named_is_set_and_the_rest_stays() -> None:
    check("""
        nothing alice
        configure limit=50              | configured limit=50 holds=no frozen=no seq=0
        configure holds=yes             | configured limit=50 holds=yes frozen=no
        configure frozen=yes            | configured limit=50 holds=yes frozen=yes
        configure limit=0 frozen=no     | configured limit=0 holds=yes frozen=no
        configure                       | configured limit=0 holds=yes frozen=no
    """)


def test_an_account_that_was_configured_exists_and_has_what_its_limit_allows() -> None:
    check("""
        debit   1                       | refused INSUFFICIENT_CREDITS
        configure limit=50 holds=yes    | configured limit=50 available=0
        reserve job 30                  | held 30 available=-30
        debit   20                      | debited 20 available=-50 debt=20
        debit   1                       | refused INSUFFICIENT_CREDITS available=-50
    """)


def test_a_limit_below_what_is_used_blocks_new_spending_only() -> None:
    check("""
        configure limit=100 holds=yes   | configured limit=100
        reserve job 60                  | held 60
        debit   40                      | debited 40 debt=40
        configure limit=10              | configured limit=10 available=-100 held=60 debt=40
        debit   1                       | refused INSUFFICIENT_CREDITS available=-100 reservable=0
        reserve two 1                   | refused INSUFFICIENT_CREDITS available=-100
        settle  job 60                  | charged 60 from_hold=60
        grant   gift 95                 | granted 95 repaid=95
        debit   5                       | debited 5 available=-10
        debit   1                       | refused INSUFFICIENT_CREDITS available=-10
    """)


def test_a_frozen_account_takes_no_new_work_and_no_credits() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60                  | held 60
        configure frozen=yes            | configured frozen=yes available=40 held=60
        reserve two 10                  | refused ACCOUNT_FROZEN
        debit   10                      | refused ACCOUNT_FROZEN
        debit   10 overage=overdraft    | refused ACCOUNT_FROZEN
        debit_once key 10               | refused ACCOUNT_FROZEN
        grant   more 10                 | refused ACCOUNT_FROZEN
        extend  job add=10 id=a         | refused ACCOUNT_FROZEN
        balance available=40 held=60 granted=100 seq=1
        configure frozen=no             | configured frozen=no
        debit_once key 10               | debited 10
        grant   more 10                 | granted 10
    """)


def test_what_runs_in_a_frozen_account_may_end() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 40 ttl=5m           | held 40
        reserve run 20                  | held 20
        reserve due 10 ttl=1m           | held 10
        configure frozen=yes            | configured frozen=yes
        capture job a 5                 | charged 5 from_hold=5
        extend  job ttl=20m on_expiry=charge | holds 35 until=20m
        settle  job 45                  | charged 45 from_hold=35 overage=10
        release run                     | released
        at      1m
        expire                          | expired released=1
        settle  due 5                   | charged 5 overage=5 late
        balance available=45 held=0 spent=55
    """)


def test_replays_are_answered_by_a_frozen_account() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60                  | held 60
        debit   10 id=a                 | debited 10
        configure frozen=yes            | configured frozen=yes
        grant   gift 100                | granted 100 replayed
        reserve job 60                  | held 60 replayed
        debit   10 id=a                 | debited 10 replayed
        reserve job 61                  | refused IDEMPOTENCY_MISMATCH
    """)


def test_a_frozen_account_says_so_before_the_lack_of_credits() -> None:
    check("""
        configure frozen=yes            | configured frozen=yes
        reserve job 60                  | refused ACCOUNT_FROZEN
        debit   60                      | refused ACCOUNT_FROZEN
        grant   past 1 expires=0s       | refused INVALID_FIELD
    """)
