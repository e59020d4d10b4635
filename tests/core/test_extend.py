"""Extend: heartbeat, growth, and "work has started", together or apart."""

from __future__ import annotations

from .table import check


def test_time_counts_from_now() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        at      4m
        extend  job ttl=5m        | holds 60 until=9m on_expiry=RELEASE
        at      8m59s
        settle  job 60            | charged 60 from_hold=60
    """)


def test_time_only_ever_moves_later() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=10m    | held 60
        at      4m
        extend  job ttl=1m        | holds 60 until=10m
        extend  job ttl=6m        | holds 60 until=10m
        extend  job ttl=6m1us     | holds 60 until=10m1us
    """)


def test_an_expired_hold_is_not_revived() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        at      5m
        extend  job ttl=5m        | refused RESERVATION_EXPIRED reservation_id=job end_time=5m
        balance available=100 held=0
    """)


def test_an_extended_hold_expires_at_its_new_time_only() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        extend  job ttl=10m       | holds 60 until=10m
        at      6m
        expire                    | expired held=60
        at      10m
        expire                    | expired released=1 held=0
        reservation job EXPIRED end=10m
    """)


def test_growth_is_added_to_the_hold_in_spend_order() -> None:
    check("""
        grant   paid 100                | granted 100
        reserve job 60                  | held 60
        grant   gift 30 priority=10     | granted 30
        extend  job add=50 id=a         | holds 110 available=20 held=110
        reservation job ACTIVE reserved=110 open=110 parts=2:30,1:80
        settle  job 40                  | charged 40 from_hold=40 released=70
        entry   3 CAPTURE-40 parts=2:30,1:10
    """)


def test_growth_is_all_or_nothing() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60 ttl=5m           | held 60
        extend  job add=41 ttl=9m id=a  | refused INSUFFICIENT_CREDITS available=40 required=41
        reservation job ACTIVE open=60 until=5m
        extend  job add=40 ttl=9m id=a  | holds 100 until=9m available=0
    """)


def test_growth_counts_what_was_captured() -> None:
    check("""
        grant   gift 100                | granted 100
        reserve job 60                  | held 60
        capture job a 50                | charged 50 from_hold=50
        extend  job add=20 id=b         | holds 30
        reservation job ACTIVE reserved=80 open=30 captured=50
    """)


def test_work_has_started() -> None:
    check("""
        grant   gift 100                     | granted 100
        reserve job 60 ttl=5m                | held 60
        extend  job on_expiry=charge         | holds 60 until=5m on_expiry=CHARGE
        at      5m
        expire                               | expired charged=1 spent=60
    """)


def test_work_has_not_started_after_all() -> None:
    check("""
        grant   gift 100                        | granted 100
        reserve job 60 ttl=5m on_expiry=charge  | held 60
        extend  job on_expiry=release           | holds 60 on_expiry=RELEASE
        at      5m
        expire                                  | expired released=1 spent=0
    """)


def test_all_together() -> None:
    check("""
        grant   gift 100                                     | granted 100
        reserve job 60 ttl=5m                                | held 60
        at      1m
        extend  job ttl=10m add=15 on_expiry=charge id=a     | holds 75 until=11m on_expiry=CHARGE
        at      11m
        expire                                               | expired charged=1 spent=75
    """)


def test_a_finished_hold_takes_no_extension() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve a 10 ttl=5m       | held 10
        settle  a 10              | charged 10 from_hold=10
        extend  a ttl=9m          | refused RESERVATION_SETTLED end_time=0s
        reserve b 10 ttl=5m       | held 10
        release b                 | released
        extend  b ttl=9m          | refused RESERVATION_RELEASED end_time=0s
        extend  c ttl=9m          | refused RESERVATION_NOT_FOUND reservation_id=c
        account nobody
        extend  c ttl=9m          | refused RESERVATION_NOT_FOUND
    """)


def test_without_an_id_every_heartbeat_counts() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve job 60 ttl=5m     | held 60
        at      1m
        extend  job ttl=5m        | holds 60 until=6m
        at      2m
        extend  job ttl=5m        | holds 60 until=7m
    """)


def test_an_extend_id_is_unique_in_its_reservation_only() -> None:
    check("""
        grant   gift 100          | granted 100
        reserve one 10            | held 10
        reserve two 10            | held 10
        extend  one add=10 id=a   | holds 20
        extend  two add=20 id=a   | holds 30
        capture one a 5           | charged 5 from_hold=5
    """)
