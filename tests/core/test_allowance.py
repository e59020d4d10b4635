"""Allowances: renewed at each boundary, spent first, and never given twice for one period."""

from __future__ import annotations

from .table import check


def test_a_first_allowance_begins_at_once_and_is_replaced_at_each_boundary() -> None:
    check("""
        configure allowance=100:daily        | configured refill=1d available=100
        debit   30                           | debited 30
        at      1d
        expire                               | expired lots=1 refilled=1 available=100
        ledger  ALLOWANCE+100 DEBIT-30 EXPIRY-70 ALLOWANCE+100
        at      1d23h59m59s
        debit   100                          | debited 100
        at      2d
        debit   100                          | debited 100
        balance granted=300 spent=230 expired=70 available=0
    """)


def test_it_is_spent_before_other_credits_unless_told_otherwise() -> None:
    check("""
        grant   paid 100                     | granted 100
        configure allowance=50:monthly       | configured refill=31d
        debit   60                           | debited 60
        lots    1:90
        account bob
        grant   other 100                    | granted 100
        configure allowance=50:monthly priority=60   | configured refill=31d
        debit   60                           | debited 60
        lots    1:40 2:50
    """)


def test_missed_boundaries_give_one_refill() -> None:
    check("""
        configure allowance=100:daily        | configured refill=1d
        at      40d5h
        expire                               | expired lots=1 refilled=1 available=100
        ledger  ALLOWANCE+100 EXPIRY-100 ALLOWANCE+100
        configure                            | configured refill=41d
    """)


def test_any_operation_refills() -> None:
    check("""
        configure allowance=100:weekly       | configured refill=7d
        debit   100                          | debited 100
        at      7d
        reserve job 100                      | held 100
    """)


def test_months_count_from_the_anchor_and_do_not_drift() -> None:
    """The tables begin on January 1, so that 30d is January 31."""
    check("""
        at      30d
        configure allowance=10:monthly       | configured refill=58d
        at      58d
        configure                            | configured refill=89d
        at      89d
        configure                            | configured refill=119d
        at      120d
        configure                            | configured refill=150d
    """)


def test_an_anchor_in_the_future_begins_then() -> None:
    check("""
        configure allowance=100:daily:36h    | configured refill=1d12h available=0
        debit   1                            | refused INSUFFICIENT_CREDITS
        at      36h
        debit   1                            | debited 1
        configure                            | configured refill=2d12h available=99
    """)


def test_an_anchor_in_the_past_begins_in_the_middle_of_a_period() -> None:
    check("""
        at      10d
        configure allowance=100:weekly:1d    | configured refill=15d available=100
    """)


def test_what_is_held_of_the_old_lot_stays_with_its_job() -> None:
    check("""
        configure allowance=100:daily        | configured refill=1d
        at      23h
        reserve job 40 ttl=2h                | held 40
        at      1d
        expire                               | expired lots=1 refilled=1
        lots    1:0/40 3:100
        settle  job 30                       | charged 30 from_hold=30 released=10
        lots    3:100
        ledger  ALLOWANCE+100 EXPIRY-60 ALLOWANCE+100 CAPTURE-30 EXPIRY-10
    """)


def test_a_refill_repays_debt_first() -> None:
    check("""
        configure allowance=100:daily        | configured refill=1d
        debit   130 overage=overdraft        | debited 130
        at      1d
        expire                               | expired refilled=1 available=70 debt=0
    """)


class TestAChange:
    def test_counts_from_the_end_of_the_running_period(self) -> None:
        check("""
            configure allowance=100:daily      | configured refill=1d
            debit   100                        | debited 100
            configure allowance=500:daily      | configured refill=1d available=0
            at      1d
            expire                             | expired refilled=1 available=500
        """)

    def test_of_the_period_waits_for_the_first_boundary_after_it(self) -> None:
        check("""
            configure allowance=100:monthly    | configured refill=31d
            at      5d
            configure allowance=10:daily       | configured refill=31d available=100
            at      31d
            expire                             | expired lots=1 refilled=1 available=10
            configure                          | configured refill=32d
        """)

    def test_that_changes_nothing_does_nothing(self) -> None:
        check("""
            configure allowance=100:daily      | configured refill=1d
            at      1h
            configure allowance=100:daily      | configured refill=1d seq=1
        """)

    def test_of_the_amount_keeps_anchor_and_priority(self) -> None:
        book = check("""
            configure allowance=100:weekly:1d priority=70   | configured refill=1d
            at      10h
            configure allowance=50:weekly      | configured refill=1d
        """)
        allowance = book.account().allowance
        assert allowance is not None
        assert (allowance.priority, allowance.amount_micros) == (70, 50)

    def test_to_off_leaves_what_the_running_period_gave(self) -> None:
        check("""
            configure allowance=100:daily      | configured refill=1d
            configure allowance=off            | configured refill=never available=100
            debit   10                         | debited 10
            at      1d
            expire                             | expired lots=1 available=0
            at      9d
            expire                             | expired
        """)

    def test_off_and_on_again_does_not_give_a_period_twice(self) -> None:
        check("""
            configure allowance=100:daily      | configured refill=1d
            debit   100                        | debited 100
            configure allowance=off            | configured refill=never
            configure allowance=100:daily      | configured refill=1d available=0
        """)

    def test_on_again_after_the_period_begins_at_once(self) -> None:
        check("""
            configure allowance=100:daily      | configured refill=1d
            configure allowance=off            | configured refill=never
            at      3d2h
            configure allowance=20:daily       | configured refill=4d available=20
        """)


def test_no_room_no_refill_and_the_clock_goes_on() -> None:
    check("""
        grant   huge 9_000_000_000_000_000_000   | granted 9000000000000000000
        configure allowance=100:daily            | configured refill=1d seq=1
        at      1d
        expire                                   | expired refilled=1 seq=1
        configure                                | configured refill=2d
    """)


def test_a_frozen_account_is_refilled_and_cannot_spend_it() -> None:
    check("""
        configure allowance=100:daily frozen=yes   | configured refill=1d frozen=yes
        at      1d
        debit   1                                  | refused ACCOUNT_FROZEN
        balance available=100
    """)


class TestDefaults:
    def test_a_created_account_gets_allowance_and_signup_grant_once(self) -> None:
        check("""
            defaults signup=50 lifetime=7d allowance=100:daily   | defaulted
            grant   paid 10                    | granted 10 available=160 seq=3
            ledger  ALLOWANCE+100 GRANT+50 GRANT+10
            configure                          | configured refill=1d seq=3
            at      7d
            expire                             | expired lots=2 refilled=1 available=110
        """)

    def test_so_does_one_that_is_configured(self) -> None:
        check("""
            defaults signup=50                 | defaulted
            configure limit=5                  | configured limit=5 refill=never available=50
            at      500d
            expire                             | expired available=50
        """)

    def test_its_own_allowance_stands_in_for_the_default_one(self) -> None:
        check("""
            defaults allowance=100:daily       | defaulted
            configure allowance=7:weekly       | configured refill=7d available=7
            account bob
            configure allowance=off            | configured refill=never available=0
        """)

    def test_an_account_that_is_merely_asked_gets_nothing(self) -> None:
        check("""
            defaults signup=50                 | defaulted
            debit   1                          | refused INSUFFICIENT_CREDITS
            reserve job 1                      | refused INSUFFICIENT_CREDITS
            expire                             | expired
            revoke  key                        | refused GRANT_NOT_FOUND
            nothing alice
        """)

    def test_a_refused_grant_gives_nothing_either(self) -> None:
        check("""
            defaults signup=50                 | defaulted
            at      2d
            grant   late 10 expires=1d         | refused INVALID_FIELD
            nothing alice
        """)

    def test_they_can_be_taken_away(self) -> None:
        check("""
            defaults signup=50 allowance=100:daily   | defaulted
            defaults signup=0 allowance=off    | defaulted
            grant   paid 10                    | granted 10 available=10
        """)

    def test_each_unit_and_namespace_has_its_own(self) -> None:
        check("""
            defaults signup=50                 | defaulted
            account bob unit=tokens
            grant   one 10                     | granted 10 available=10
            account bob namespace=test
            grant   one 10                     | granted 10 available=10
        """)
