"""RevokeGrant and ReinstateGrant: refunds and disputes of purchases, in any order, once each."""

from __future__ import annotations

import pytest

from .table import check


class TestRevoke:
    def test_takes_what_the_lot_has(self) -> None:
        check("""
            grant   order 100                  | granted 100
            revoke  order 40                   | revoked 40 total=40 available=60 revoked=40
            entry   2 REVOCATION-40 parts=1:40 key=order related=1
            lots    1:60
        """)

    def test_is_cumulative_and_takes_the_difference_only(self) -> None:
        check("""
            grant   order 100                  | granted 100
            revoke  order 40                   | revoked 40 total=40
            revoke  order 40                   | revoked 0 total=40
            revoke  order 30                   | revoked 0 total=40
            revoke  order 70                   | revoked 30 total=70
            revoke  order                      | revoked 30 total=100
            revoke  order                      | revoked 0 total=100
            balance available=0 revoked=100 seq=4
        """)

    @pytest.mark.parametrize(
        ("granted", "ppm", "revoked"),
        [
            (100, 500_000, 50),
            (3, 500_000, 2),
            (1, 500_000, 1),
            (1, 499_999, 0),
            (7, 333_333, 2),
            (1_000_000_000_000_000, 1, 1_000_000_000),
            (999_999_999_999_999, 999_999, 999_998_999_999_999),
            (100, 1_000_000, 100),
        ],
    )
    def test_a_fraction_is_rounded_half_up(self, granted: int, ppm: int, revoked: int) -> None:
        check(f"""
            grant   order {granted}            | granted {granted}
            revoke  order ppm={ppm}            | revoked {revoked}
        """)

    def test_is_capped_at_the_grant(self) -> None:
        check("""
            grant   order 100                  | granted 100
            grant   other 100                  | granted 100
            revoke  order 500                  | revoked 100 total=100 available=100
        """)

    def test_what_was_spent_becomes_debt(self) -> None:
        check("""
            grant   order 100                  | granted 100
            debit   80                         | debited 80
            revoke  order                      | revoked 100 debt=80 available=-80
            entry   3 REVOCATION-100 parts=1:20
            reserve job 1                      | refused INSUFFICIENT_CREDITS available=-80
            grant   next 100                   | granted 100 repaid=80 available=20
        """)

    def test_other_lots_pay_before_anything_is_owed(self) -> None:
        check("""
            grant   order 100 priority=1       | granted 100
            debit   80                         | debited 80
            grant   other 50                   | granted 50
            revoke  order                      | revoked 100 debt=30 available=-30
            entry   4 REVOCATION-100 parts=1:20,3:50
        """)

    def test_what_is_held_stays_with_its_job_and_pays_when_it_returns(self) -> None:
        check("""
            grant   order 100                  | granted 100
            reserve job 100                    | held 100
            revoke  order                      | revoked 100 held=100 debt=100 available=-100
            settle  job 30                     | charged 30 from_hold=30 released=70
            balance debt=30 held=0 available=-30 spent=30 revoked=100
        """)

    def test_what_has_expired_is_not_taken(self) -> None:
        check("""
            grant   order 100 expires=1d       | granted 100
            debit   30                         | debited 30
            at      1d
            revoke  order                      | revoked 30 total=30 debt=30
            balance expired=70 revoked=30 spent=30
        """)

    def test_what_expires_when_it_returns_is_not_taken_twice(self) -> None:
        """The job used nothing and the credits are lost: nobody owes them as well."""
        check("""
            grant   order 100 expires=1d       | granted 100
            reserve job 100 ttl=2d             | held 100
            revoke  order                      | revoked 100 debt=100
            at      1d1h
            release job                        | released
            balance debt=0 available=0 expired=100 revoked=0
            ledger  GRANT+100 REVOCATION-100 EXPIRY-100 REINSTATEMENT+100
        """)

    @pytest.mark.parametrize("order", [("z 60", "dispute 40"), ("dispute 40", "z 60")])
    def test_which_of_two_is_undone_by_an_expiry_does_not_hang_on_their_order(
        self, order: tuple[str, str]
    ) -> None:
        """It is the first by its id. In which order they were said is not stored."""
        revokes = "\n".join(
            f"revoke order {micros} id={revocation_id} | revoked {micros}"
            for revocation_id, micros in (said.split() for said in order)
        )
        check(f"""
            grant   order 100 expires=1d       | granted 100
            reserve job 100 ttl=2d             | held 100
            {revokes}
            at      1d1h
            settle  job 70                     | charged 70 from_hold=70 released=30
            reinstate order id=dispute         | reinstated 10 total=60
            reinstate order id=z               | reinstated 60
        """)

    def test_a_debt_that_was_repaid_comes_back_as_credits(self) -> None:
        check("""
            grant   order 100 expires=1d       | granted 100
            reserve job 100 ttl=2d             | held 100
            revoke  order                      | revoked 100 debt=100
            grant   next 100                   | granted 100 repaid=100
            at      1d1h
            release job                        | released
            balance debt=0 available=100
            lots    5:100
        """)

    def test_refunding_the_charge_pays_the_debt(self) -> None:
        check("""
            grant   order 100 expires=1d       | granted 100
            debit   100                        | debited 100
            revoke  order                      | revoked 100 debt=100
            at      1d
            refund  back 2                     | refunded 100
            balance debt=0 available=0 revoked=0 expired=100
        """)

    def test_a_frozen_account_can_be_taken_from(self) -> None:
        check("""
            grant   order 100                  | granted 100
            configure frozen=yes               | configured frozen=yes
            revoke  order                      | revoked 100
            reinstate order                    | reinstated 100
        """)

    def test_legacy_keys_name_the_grant_too(self) -> None:
        check("""
            grant   order 100 legacy=old       | granted 100
            revoke  old 10                     | revoked 10 total=10
            revoke  order 10                   | revoked 0 total=10
        """)

    def test_of_a_grant_that_nobody_made_is_refused(self) -> None:
        check("""
            revoke  order                      | refused GRANT_NOT_FOUND grant_key=order
            reinstate order                    | refused GRANT_NOT_FOUND grant_key=order
            nothing alice
        """)


class TestTheAccount:
    def test_is_found_by_the_key(self) -> None:
        check("""
            grant   order 100                  | granted 100
            revoke  order of=nobody            | elsewhere alice
            reinstate order of=nobody          | elsewhere alice
        """)

    def test_that_is_named_must_be_the_one(self) -> None:
        check("""
            grant   order 100                  | granted 100
            account bob
            revoke  order                      | refused SOURCE_MISMATCH field=account
            account alice unit=tokens
            revoke  order                      | refused SOURCE_MISMATCH field=unit original=credits
        """)

    def test_of_another_namespace_is_not_seen(self) -> None:
        check("""
            grant   order 100                  | granted 100
            account alice namespace=test
            revoke  order of=nobody            | refused GRANT_NOT_FOUND
        """)


class TestIdsOfRevocations:
    def test_add_up_to_the_grant(self) -> None:
        check("""
            grant   order 100                  | granted 100
            revoke  order 60                   | revoked 60 total=60
            revoke  order 60 id=dispute        | revoked 40 total=100
        """)

    def test_are_reinstated_one_by_one(self) -> None:
        check("""
            grant   order 100                  | granted 100
            revoke  order 30                   | revoked 30
            revoke  order 50 id=dispute        | revoked 50 total=80
            reinstate order id=dispute         | reinstated 50 total=30 available=70
            reinstate order id=dispute         | reinstated 0 total=30
            reinstate order                    | reinstated 30 total=0 available=100
        """)

    @pytest.mark.parametrize(
        ("before", "revoked"),
        [("grant order 100 | granted 100", "1 total=64"), ("expire | expired", "0 waiting")],
        ids=["of a lot", "of a tombstone"],
    )
    def test_are_64_at_most(self, before: str, revoked: str) -> None:
        first = revoked.replace("total=64", "")
        rows = "\n".join(
            f"revoke order 1 id=d{number} tombstone=yes | revoked {first}" for number in range(63)
        )
        check(f"""
            {before}
            {rows}
            revoke order 1 tombstone=yes            | revoked {revoked}
            revoke order 1 id=d64 tombstone=yes     | refused INVALID_FIELD field=revocation_id
            revoke order 2 id=d0 tombstone=yes      | revoked {first}
        """)


class TestReinstate:
    def test_gives_back_what_was_taken(self) -> None:
        check("""
            grant   order 100                  | granted 100
            debit   80                         | debited 80
            revoke  order                      | revoked 100 debt=80
            reinstate order                    | reinstated 100 total=0 available=20 debt=0
            entry   4 REINSTATEMENT+100 parts=1:20 key=order related=1
            lots    1:20
        """)

    def test_makes_a_late_copy_of_the_revocation_do_nothing(self) -> None:
        """A webhook of the dispute that comes again after the dispute was won."""
        check("""
            grant   order 100                  | granted 100
            revoke  order id=dispute           | revoked 100
            reinstate order id=dispute         | reinstated 100
            revoke  order id=dispute           | revoked 0 total=0 available=100
            revoke  order                      | revoked 100 total=100
        """)

    def test_after_which_more_is_the_difference(self) -> None:
        check("""
            grant   order 100                  | granted 100
            revoke  order 30                   | revoked 30
            reinstate order                    | reinstated 30
            revoke  order 50                   | revoked 20 total=20
        """)

    def test_into_an_expired_lot_expires_at_once(self) -> None:
        check("""
            grant   order 100 expires=1d       | granted 100
            revoke  order 40                   | revoked 40
            at      1d
            reinstate order                    | reinstated 40 available=0 expired=100
        """)

    def test_a_debt_that_was_repaid_opens_a_lot(self) -> None:
        check("""
            grant   order 100                  | granted 100
            debit   100                        | debited 100
            revoke  order                      | revoked 100 debt=100
            grant   next 150                   | granted 150 repaid=100
            reinstate order                    | reinstated 100 available=150
            lots    4:50 5:100
        """)


class TestATombstone:
    def test_of_all_blocks_the_grant(self) -> None:
        check("""
            revoke  order tombstone=yes        | revoked 0 waiting
            grant   order 100                  | refused GRANT_REVOKED grant_key=order
            nothing alice
        """)

    def test_of_a_part_is_applied_when_the_grant_lands(self) -> None:
        check("""
            revoke  order ppm=250_000 tombstone=yes   | revoked 0 waiting
            grant   order 100                  | granted 100 taken=25 available=75
            grant   order 100                  | granted 100 taken=25 replayed available=75
            revoke  order ppm=250_000          | revoked 0 total=25
            revoke  order ppm=500_000          | revoked 25 total=50
        """)

    def test_the_largest_wins(self) -> None:
        check("""
            revoke  order ppm=500_000 tombstone=yes   | revoked 0 waiting
            revoke  order ppm=250_000 tombstone=yes   | revoked 0 waiting
            revoke  order 60 tombstone=yes     | revoked 0 waiting
            grant   order 100                  | granted 100 taken=60
        """)

    def test_of_an_amount_blocks_what_is_no_more(self) -> None:
        check("""
            revoke  order 60 tombstone=yes     | revoked 0 waiting
            grant   order 60                   | refused GRANT_REVOKED
            grant   order 61                   | granted 61 taken=60
        """)

    def test_can_be_undone(self) -> None:
        check("""
            revoke  order tombstone=yes        | revoked 0 waiting
            grant   order 100                  | refused GRANT_REVOKED
            reinstate order                    | reinstated 0 waiting
            grant   order 100                  | granted 100 available=100
            revoke  order                      | revoked 0 total=0
            revoke  order id=dispute           | revoked 100 total=100
        """)

    def test_needs_no_account_and_meets_the_grant_of_any(self) -> None:
        check("""
            revoke  order ppm=500_000 tombstone=yes of=nobody   | revoked 0 waiting
            account bob
            grant   order 100                  | granted 100 taken=50
            account alice
            grant   order 100                  | refused IDEMPOTENCY_MISMATCH field=account
        """)

    def test_under_a_legacy_key_counts(self) -> None:
        check("""
            revoke  old tombstone=yes          | revoked 0 waiting
            grant   order 100 legacy=old       | refused GRANT_REVOKED
            reinstate old                      | reinstated 0 waiting
            grant   order 100 legacy=old       | granted 100
            revoke  old id=more                | revoked 100
        """)

    def test_waits_for_a_grant_that_is_pending_too(self) -> None:
        check("""
            revoke  order ppm=400_000 tombstone=yes   | revoked 0 waiting
            grant   order 100 effective=1d     | pending pending=60
            at      1d
            expire                             | expired landed=1 available=60
        """)

    def test_has_to_be_allowed_each_time(self) -> None:
        check("""
            revoke  order tombstone=yes        | revoked 0 waiting
            revoke  order                      | refused GRANT_NOT_FOUND
        """)


class TestTheSource:
    def test_that_is_expected_must_be_the_one(self) -> None:
        check("""
            grant   order 100 source=provider:shop   | granted 100
            revoke  order source=provider:other  | refused SOURCE_MISMATCH original=shop
            reinstate order source=store_id:one  | refused SOURCE_MISMATCH
            revoke  order source=provider:shop   | revoked 100
        """)

    def test_of_a_tombstone_must_be_that_of_the_grant(self) -> None:
        check("""
            revoke  order 10 tombstone=yes source=provider:shop    | revoked 0 waiting
            revoke  order 20 tombstone=yes source=provider:other   | refused SOURCE_MISMATCH
            grant   order 100 source=provider:other   | refused SOURCE_MISMATCH original=shop
            grant   order 100                         | refused SOURCE_MISMATCH
            grant   order 100 source=provider:shop    | granted 100 taken=10
        """)
