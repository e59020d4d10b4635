"""The periods of an allowance, found by walking from the anchor, step by step."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count

_DAYS = {"DAILY": 1, "WEEKLY": 7}


def boundaries(anchor: datetime, period: str, *, backwards: bool = False) -> Iterator[datetime]:
    """The anchor, and what comes after it, or before it."""
    for number in count():
        yield _boundary(anchor, period, -number if backwards else number)


def begin_at(anchor: datetime, period: str, at: datetime) -> datetime:
    """The last boundary that is not later than `at`, before the anchor too."""
    if at < anchor:
        return next(begin for begin in boundaries(anchor, period, backwards=True) if begin <= at)
    last = anchor
    for begin in boundaries(anchor, period):
        if begin > at:
            return last
        last = begin
    raise AssertionError("time has no end")


def end_after(anchor: datetime, period: str, at: datetime) -> datetime:
    """The first boundary that is later than `at`."""
    return first_from(anchor, period, at + timedelta(microseconds=1), back=True)


def first_from(anchor: datetime, period: str, at: datetime, *, back: bool = False) -> datetime:
    """The first boundary at `at` or later: none before the anchor, but with `back`."""
    if not back or anchor <= at:
        return next(begin for begin in boundaries(anchor, period) if begin >= at)
    first = anchor
    for begin in boundaries(anchor, period, backwards=True):
        if begin < at:
            break
        first = begin
    return first


def _boundary(anchor: datetime, period: str, number: int) -> datetime:
    if period in _DAYS:
        return anchor + timedelta(days=number * _DAYS[period])
    month = anchor.month - 1 + number
    year, month = anchor.year + month // 12, month % 12 + 1
    return anchor.replace(year=year, month=month, day=min(anchor.day, monthrange(year, month)[1]))
