"""How often a caller may come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meterhold_server.core.token_bucket import TokenBucket

moments = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=60)


def test_a_full_bucket_has_one_second_s_worth() -> None:
    bucket = TokenBucket(3, 0.0)
    assert [bucket.take(1, 0.0) for _ in range(4)] == [0, 0, 0, 1 / 3]


def test_it_fills_at_a_steady_rate_and_not_over_its_brim() -> None:
    bucket = TokenBucket(4, 0.0)
    assert bucket.take(4, 0.0) == 0
    assert bucket.take(1, 0.125) == 0.125
    assert bucket.take(1, 0.25) == 0
    assert [bucket.take(1, 100.0) for _ in range(5)] == [0, 0, 0, 0, 0.25]


def test_a_large_message_passes_and_is_paid_for_later() -> None:
    bucket = TokenBucket(10, 0.0)
    assert bucket.take(1000, 0.0) == 0
    assert bucket.take(1, 0.0) == 99.1
    assert bucket.take(1, 99.1) == 0


@given(st.integers(1, 20), moments)
def test_never_more_than_the_rate_and_one_bucket(
    per_second: int, arrivals: list[tuple[float, int]]
) -> None:
    """What is let in, but for the last message, is covered by the bucket and what flowed in."""
    bucket = TokenBucket(per_second, 0.0)
    now, taken, last = 0.0, 0, 0
    for pause, count in arrivals:
        now += pause
        if bucket.take(count, now) == 0:
            taken += last
            last = count
    assert taken <= per_second * (1 + now) + 1e-6


@given(st.integers(1, 20), moments)
def test_whoever_waits_as_told_is_let_in(
    per_second: int, arrivals: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(per_second, 0.0)
    now = 0.0
    for pause, count in arrivals:
        now += pause
        if wait := bucket.take(count, now):
            now += wait + 1e-6
            assert bucket.take(count, now) == 0
