"""One test per reason: an operation that gives several reasons is refused for the first of them.

The order is the one that the proto's comments promise, which is the one of `Reason`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meterhold_server.core.model import BALANCE_MICROS_MAX
from meterhold_server.core.outcomes import Reason

from .table import check

PROTO = Path(__file__).parents[2] / "proto/meterhold/v1/metering_service.proto"

# Spent and held are at the bound of 9·10^18, and there is credit enough to go past it.
AT_THE_BOUND = """
    credit  9_000_000_000_000_000_000 holds
    grant   gift 100                                            | granted 100
    reserve job 60 ttl=5m                                       | held 60
    debit   8_999_999_999_999_999_940 overage=overdraft         | done
"""


def test_not_found_comes_before_all_else() -> None:
    check(f"""
        {AT_THE_BOUND}
        settle  no 1 overage=reject               | refused RESERVATION_NOT_FOUND reservation_id=no
        capture no a 1                            | refused RESERVATION_NOT_FOUND
        extend  no add=1 id=a                     | refused RESERVATION_NOT_FOUND
        release no                                | refused RESERVATION_NOT_FOUND
        account bob
        settle  job 1                             | refused RESERVATION_NOT_FOUND
    """)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("settle job 10 | done", id="settled"),
        pytest.param("release job | done", id="released"),
        pytest.param("at 2d", id="expired"),
    ],
)
def test_a_mismatch_comes_before_the_state_and_the_lack_of_credits(end: str) -> None:
    check(f"""
        grant   gift 100                       | granted 100
        reserve job 60 ttl=5m                  | held 60
        capture job a 10                       | charged 10 from_hold=10
        extend  job add=10 id=a                | holds 60
        {end}
        capture job a 900 overage=reject       | refused IDEMPOTENCY_MISMATCH field=amount_micros
        extend  job add=900 id=a               | refused IDEMPOTENCY_MISMATCH
        reserve job 900                        | refused IDEMPOTENCY_MISMATCH field=amount_micros
    """)


def test_settling_again_is_a_replay_or_a_mismatch_and_never_just_settled() -> None:
    check("""
        grant   gift 100                       | granted 100
        reserve job 60                         | held 60
        settle  job 10                         | charged 10 from_hold=10 released=50
        settle  job 900 overage=reject         | refused IDEMPOTENCY_MISMATCH field=amount_micros
    """)


def test_a_mismatch_of_a_debit_comes_before_the_lack_of_credits_and_the_range() -> None:
    check("""
        credit  9_000_000_000_000_000_000
        grant   gift 100                                            | granted 100
        debit   10 id=request                                       | debited 10
        debit_once key 10                                           | debited 10
        debit   900 id=request                                      | refused IDEMPOTENCY_MISMATCH
        debit_once key 900                                          | refused IDEMPOTENCY_MISMATCH
        debit   9_000_000_000_000_000_000 id=request                | refused IDEMPOTENCY_MISMATCH
        debit_once key 9_000_000_000_000_000_000 overage=overdraft  | refused IDEMPOTENCY_MISMATCH
    """)


def test_a_mismatch_of_a_grant_comes_before_its_expiry_and_the_range() -> None:
    check("""
        grant   gift 10 expires=5m                                  | granted 10
        at      5m
        grant   gift 10 expires=4m                                  | refused IDEMPOTENCY_MISMATCH
        grant   gift 9_000_000_000_000_000_001 expires=5m           | refused IDEMPOTENCY_MISMATCH
        grant   gift 10 expires=5m                                  | granted 10 replayed
    """)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param("settle job 0 | done", Reason.RESERVATION_SETTLED, id="settled"),
        pytest.param("release job | done", Reason.RESERVATION_RELEASED, id="released"),
        pytest.param("at 2d", Reason.RESERVATION_EXPIRED, id="expired"),
    ],
)
def test_the_state_comes_before_the_lack_of_credits(end: str, reason: Reason) -> None:
    check(f"""
        grant   gift 100                       | granted 100
        reserve job 60 ttl=5m                  | held 60
        {end}
        capture job a 900 overage=reject       | refused {reason} reservation_id=job
        extend  job add=900 id=a               | refused {reason}
    """)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param("settle job 0 | done", Reason.RESERVATION_SETTLED, id="settled"),
        pytest.param("release job | done", Reason.RESERVATION_RELEASED, id="released"),
        pytest.param("at 2d", Reason.RESERVATION_EXPIRED, id="expired"),
    ],
)
def test_the_state_comes_before_the_range(end: str, reason: Reason) -> None:
    check(f"""
        {AT_THE_BOUND}
        {end}
        capture job a 900 overage=overdraft    | refused {reason}
        extend  job add=900 id=a               | refused {reason}
    """)


def test_a_released_one_is_not_settled() -> None:
    check("""
        grant   gift 100                       | granted 100
        reserve job 60 ttl=5m                  | held 60
        at      1m
        release job                            | released
        settle  job 60                         | refused RESERVATION_RELEASED end_time=1m
        at      1d
        settle  job 0                          | refused RESERVATION_RELEASED end_time=1m
    """)


def test_an_extension_after_the_expiry_is_refused_within_the_grace_time_already() -> None:
    check("""
        grant   gift 100                       | granted 100
        reserve job 60 ttl=5m                  | held 60
        at      5m
        extend  job add=900 id=a               | refused RESERVATION_EXPIRED end_time=5m
        settle  job 60 overage=reject          | charged 60 overage=60 late
    """)


def test_an_expiry_in_the_past_comes_before_the_range() -> None:
    check("""
        grant   gift 10                                     | granted 10
        at      5m
        grant   more 9_000_000_000_000_000_000 expires=5m   | refused INVALID_FIELD
        grant   more 9_000_000_000_000_000_000              | refused BALANCE_OUT_OF_RANGE
    """)


def test_the_lack_of_credits_comes_before_the_range() -> None:
    huge = BALANCE_MICROS_MAX + 1
    check(f"""
        grant   gift 100                       | granted 100
        reserve job 60                         | held 60
        reserve next {huge}                    | refused INSUFFICIENT_CREDITS
        extend  job add={huge} id=a            | refused INSUFFICIENT_CREDITS
        settle  job {huge} overage=reject      | refused INSUFFICIENT_CREDITS
        debit   {huge}                         | refused INSUFFICIENT_CREDITS
        debit_once key {huge}                  | refused INSUFFICIENT_CREDITS
        settle  job {huge} overage=overdraft   | refused BALANCE_OUT_OF_RANGE
        debit   {huge} overage=overdraft       | refused BALANCE_OUT_OF_RANGE
    """)


def test_the_range_comes_last() -> None:
    check(f"""
        {AT_THE_BOUND}
        reserve next 1                         | refused BALANCE_OUT_OF_RANGE field=spent_micros
        extend  job add=1 id=a                 | refused BALANCE_OUT_OF_RANGE
        settle  job 61                         | refused BALANCE_OUT_OF_RANGE
        debit   1                              | refused BALANCE_OUT_OF_RANGE
        debit_once key 1                       | refused BALANCE_OUT_OF_RANGE
        settle  job 60                         | charged 60 from_hold=60
    """)


def test_the_proto_promises_the_order_of_the_enum() -> None:
    prose = re.sub(r"\s*//\s*", " ", PROTO.read_text())
    promises = re.findall(r"Checked in this order: ([^.]*)\.", prose)
    assert len(promises) == 9, "Reserve, Settle, Extend, Debit, DebitOnce and four of grants"
    order = list(Reason)
    for promise in promises:
        promised = [Reason(word) for word in re.findall(r"[A-Z_]{6,}", promise) if word in order]
        assert promised == sorted(promised, key=order.index), promise
        assert len(promised) >= 2
