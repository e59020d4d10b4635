"""When periods begin: leap years, ends of months, long gaps, and no drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterhold_server.core.calendar import boundary, first_boundary, period_number
from meterhold_server.core.model import AllowancePeriod

DAILY, WEEKLY, MONTHLY = (
    AllowancePeriod.DAILY,
    AllowancePeriod.WEEKLY,
    AllowancePeriod.MONTHLY,
)


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("anchor", "period", "begins"),
    [
        ("2026-01-31", MONTHLY, "2026-01-31 2026-02-28 2026-03-31 2026-04-30 2026-05-31"),
        ("2024-01-31", MONTHLY, "2024-01-31 2024-02-29 2024-03-31 2024-04-30 2024-05-31"),
        ("2027-12-31", MONTHLY, "2027-12-31 2028-01-31 2028-02-29 2028-03-31 2028-04-30"),
        ("2100-01-30", MONTHLY, "2100-01-30 2100-02-28 2100-03-30 2100-04-30 2100-05-30"),
        ("2000-01-29", MONTHLY, "2000-01-29 2000-02-29 2000-03-29 2000-04-29 2000-05-29"),
        ("2024-02-29", MONTHLY, "2024-02-29 2024-03-29 2024-04-29 2024-05-29 2024-06-29"),
        ("2026-11-15", MONTHLY, "2026-11-15 2026-12-15 2027-01-15 2027-02-15 2027-03-15"),
        ("2024-02-27", DAILY, "2024-02-27 2024-02-28 2024-02-29 2024-03-01 2024-03-02"),
        ("2025-12-30", DAILY, "2025-12-30 2025-12-31 2026-01-01 2026-01-02 2026-01-03"),
        ("2024-02-19", WEEKLY, "2024-02-19 2024-02-26 2024-03-04 2024-03-11 2024-03-18"),
    ],
)
def test_periods_begin(anchor: str, period: AllowancePeriod, begins: str) -> None:
    found = [boundary(day(anchor), period, number) for number in range(5)]
    assert found == [day(text) for text in begins.split()]


@pytest.mark.parametrize(
    ("anchor", "at", "number"),
    [
        ("2026-01-31", "2026-01-31", 0),
        ("2026-01-31", "2026-02-27T23:59:59.999999", 0),
        ("2026-01-31", "2026-02-28", 1),
        ("2026-01-31", "2026-03-30T23:59:59", 1),
        ("2026-01-31", "2026-03-31", 2),
        ("2026-01-31", "2036-01-30", 119),
        ("2026-01-31", "2036-01-31", 120),
        ("2026-01-31", "2025-12-31", -1),
        ("2024-02-29T12:00:00", "2025-02-28T11:59:59", 11),
        ("2024-02-29T12:00:00", "2025-02-28T12:00:00", 12),
    ],
)
def test_a_time_lies_in_a_month(anchor: str, at: str, number: int) -> None:
    assert period_number(day(anchor), MONTHLY, day(at)) == number


def test_the_time_of_day_is_the_anchors() -> None:
    anchor = day("2026-01-31T17:30:00.000001")
    assert boundary(anchor, MONTHLY, 1) == day("2026-02-28T17:30:00.000001")


instants = st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))
periods = st.sampled_from([DAILY, WEEKLY, MONTHLY])


@given(instants, periods, instants)
def test_every_instant_lies_in_exactly_one_period(
    anchor: datetime, period: AllowancePeriod, at: datetime
) -> None:
    number = period_number(anchor, period, at)
    assert boundary(anchor, period, number) <= at < boundary(anchor, period, number + 1)


@given(instants, periods, st.integers(0, 500))
def test_periods_follow_one_another_without_drift(
    anchor: datetime, period: AllowancePeriod, number: int
) -> None:
    begins = [boundary(anchor, period, number + more) for more in range(13)]
    assert all(timedelta(days=1) <= after - before for before, after in pairwise(begins))
    assert all(after - before <= timedelta(days=31) for before, after in pairwise(begins))
    assert {begin.time() for begin in begins} == {anchor.time()}
    if period is MONTHLY and anchor.day <= 28:
        assert {begin.day for begin in begins} == {anchor.day}


@given(instants, periods, instants)
def test_the_first_boundary_is_never_before_the_anchor(
    anchor: datetime, period: AllowancePeriod, at: datetime
) -> None:
    first = first_boundary(anchor, period, at)
    assert first >= max(at, anchor)
    number = period_number(anchor, period, first)
    assert boundary(anchor, period, number) == first
    assert number == 0 or boundary(anchor, period, number - 1) < at
