"""Lengths of time and instants: how they are written on the command line, and shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from meterhold.cli import times
from meterhold.cli.exit_codes import UsageError

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(days=14)),
        ("250ms", timedelta(milliseconds=250)),
        ("0s", timedelta(0)),
    ],
)
def test_a_length(text: str, length: timedelta) -> None:
    assert times.parse_duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "15", "m", "1.5h", "-1m", "1 m", "1y", "1M", "15min", "1m ", "1m\n", "١m"]
)
def test_what_is_not_a_length(text: str) -> None:
    with pytest.raises(UsageError, match="is not a length of time: write 90s"):
        times.parse_duration(text)


def test_a_length_that_no_clock_has() -> None:
    with pytest.raises(UsageError, match="'999999999999w' is too long"):
        times.parse_duration("999999999999w")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2030-02-01T00:00:00Z", datetime(2030, 2, 1, tzinfo=UTC)),
        ("2030-02-01T00:00+01:00", datetime(2030, 2, 1, tzinfo=CET)),
        ("1d", NOW + timedelta(days=1)),
    ],
)
def test_an_instant(text: str, instant: datetime) -> None:
    assert times.parse_instant(text, NOW) == instant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2030-02-01", "has no time zone: add Z for UTC"),
        ("2030-02-01T00:00:00", "has no time zone"),
        ("tomorrow", "is not a time: write 2030-01-31T00:00:00Z, or a length"),
        ("900000w", "is past the year 9999"),
    ],
)
def test_what_is_not_an_instant(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        times.parse_instant(text, NOW)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2030-02-01T00:00:00Z", datetime(2030, 2, 1, tzinfo=UTC)),
        ("1d", NOW - timedelta(days=1)),
    ],
)
def test_an_instant_in_the_past(text: str, instant: datetime) -> None:
    assert times.parse_past(text, NOW) == instant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2030-02-01", "has no time zone: add Z for UTC"),
        ("yesterday", "or a length before now such as 30d"),
        ("900000w", "is before the year 1"),
    ],
)
def test_what_is_not_an_instant_in_the_past(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        times.parse_past(text, NOW)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "text", ["30d", "1h30m", "1d1h1m1s", "90s", "36h", "59s", "1.5s", "0s", "14d"]
)
def test_a_length_for_people(text: str) -> None:
    shown = {"90s": "1m30s", "36h": "1d12h"}.get(text, text)
    length = timedelta(seconds=1.5) if text == "1.5s" else times.parse_duration(text)
    assert times.length_text(length) == shown


def test_an_instant_is_shown_in_utc() -> None:
    instant = datetime(2030, 1, 31, 13, 0, 0, 250_000, tzinfo=CET)
    assert times.iso(instant) == "2030-01-31T12:00:00.250000Z"
    assert times.shown(instant) == "2030-01-31 12:00:00Z"


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (timedelta(seconds=9), "0:09"),
        (timedelta(minutes=4, seconds=9), "4:09"),
        (timedelta(hours=1, minutes=2, seconds=3), "1:02:03"),
        (timedelta(days=1, hours=2, minutes=3, seconds=4), "1d 02:03:04"),
        (timedelta(seconds=-1), "0:00"),
    ],
)
def test_the_time_that_is_left(length: timedelta, shown: str) -> None:
    assert times.left_text(length) == shown


@pytest.mark.parametrize(
    ("length", "text"),
    [(timedelta(minutes=15), "900s"), (timedelta(milliseconds=1500), "1.5s")],
)
def test_a_length_as_protobuf_writes_it_in_json(length: timedelta, text: str) -> None:
    assert times.seconds_text(length) == text
