"""When the periods of an allowance begin: the anchor plus a whole number of periods, in UTC."""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime, timedelta
from typing import Final

from meterhold_server.core.model import AllowancePeriod

_SPAN: Final = {
    AllowancePeriod.DAILY: timedelta(days=1),
    AllowancePeriod.WEEKLY: timedelta(weeks=1),
}


def boundary(anchor: datetime, period: AllowancePeriod, number: int) -> datetime:
    """The beginning of a period; `number` 0 begins at the anchor.

    A month that lacks the anchor's day begins on its last day. Each is counted from the anchor, so
    that January 31 is followed by February 28 and then by March 31.
    """
    if span := _SPAN.get(period):
        return anchor + number * span
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + number, 12)
    day = min(anchor.day, monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def period_number(anchor: datetime, period: AllowancePeriod, at: datetime) -> int:
    """The period that `at` lies in; negative before the anchor."""
    if span := _SPAN.get(period):
        return (at - anchor) // span
    number = (at.year - anchor.year) * 12 + at.month - anchor.month
    return number if boundary(anchor, period, number) <= at else number - 1


def first_boundary(anchor: datetime, period: AllowancePeriod, at: datetime) -> datetime:
    """The first boundary at `at` or later, never before the anchor."""
    number = max(0, period_number(anchor, period, at))
    begin = boundary(anchor, period, number)
    return begin if begin >= at else boundary(anchor, period, number + 1)
