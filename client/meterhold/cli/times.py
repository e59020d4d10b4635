"""Lengths of time and instants as people write them, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from meterhold.cli.exit_codes import UsageError

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART = re.compile(r"([0-9]+)(ms|[wdhms])")
_DURATION = re.compile(r"(?:[0-9]+(?:ms|[wdhms]))+")


def parse_duration(text: str) -> timedelta:
    """Answer the length that `text` says, such as `90s`, `15m`, `1h30m` or `30d`; UsageError."""
    if not _DURATION.fullmatch(text):
        raise UsageError(f"{text!r} is not a length of time: write 90s, 15m, 1h30m, 30d or 2w")
    milliseconds = sum(
        int(number) * (1 if unit == "ms" else _SECONDS[unit] * 1000)
        for number, unit in _PART.findall(text)
    )
    try:
        return timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise UsageError(f"{text!r} is too long") from None


def parse_instant(text: str, now: datetime) -> datetime:
    """Answer the aware instant that `text` says: ISO 8601 with a zone, or a length from `now`."""
    if not _DURATION.fullmatch(text):
        return _parse_iso(text, "from now")
    try:
        return now + parse_duration(text)
    except OverflowError:
        raise UsageError(f"{text!r} from now is past the year 9999") from None


def parse_past(text: str, now: datetime) -> datetime:
    """Answer the aware instant that `text` says: ISO 8601 with a zone, or a length before `now`."""
    if not _DURATION.fullmatch(text):
        return _parse_iso(text, "before now")
    try:
        return now - parse_duration(text)
    except OverflowError:
        raise UsageError(f"{text!r} before now is before the year 1") from None


def _parse_iso(text: str, a_length: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a time: write 2030-01-31T00:00:00Z, or a length {a_length} such as "
            "30d"
        ) from None
    if instant.utcoffset() is None:
        raise UsageError(f"{text!r} has no time zone: add Z for UTC, or an offset such as +02:00")
    return instant


def iso(instant: datetime) -> str:
    """Write an instant for programs, exactly, in UTC."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def shown(instant: datetime) -> str:
    """Write an instant for people, in UTC to the second."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def seconds_text(length: timedelta) -> str:
    """Write a length as protobuf's JSON does, such as `900s`."""
    seconds, micros = divmod(length // timedelta(microseconds=1), 1_000_000)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    return f"{seconds}{fraction}s"


def length_text(length: timedelta) -> str:
    """Write a length for people, such as `30d` or `1h30m`; `parse_duration` reads whole seconds."""
    seconds = length // timedelta(seconds=1)
    if not seconds or length % timedelta(seconds=1):
        return seconds_text(length)
    parts = []
    for unit in "dhms":
        number, seconds = divmod(seconds, _SECONDS[unit])
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts)


def left_text(length: timedelta) -> str:
    """Write how much time is left, such as `1d 02:03:04` or `4:09`."""
    seconds = max(0, int(length.total_seconds()))
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days}d {hours:02}:{minutes:02}:{seconds:02}"
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"
