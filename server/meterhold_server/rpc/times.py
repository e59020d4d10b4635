"""Instants and lengths of time as messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    set_timestamp(message, time)
    return message


def set_timestamp(message: Timestamp, time: datetime) -> None:
    message.seconds, message.nanos = _since_epoch(time)


@lru_cache(maxsize=64)
def _since_epoch(time: datetime) -> tuple[int, int]:
    """Seconds and nanoseconds. All that a batch writes has one time."""
    since = time - _EPOCH
    return since.days * 86_400 + since.seconds, since.microseconds * 1000


def duration(length: timedelta) -> Duration:
    return Duration(seconds=length.days * 86_400 + length.seconds, nanos=length.microseconds * 1000)
