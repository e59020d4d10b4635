"""Instants and lengths of time as messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    set_timestamp(message, time)
    return message


def set_timestamp(message: Timestamp, time: datetime) -> None:
    since = time - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1000


def duration(length: timedelta) -> Duration:
    return Duration(seconds=length.days * 86_400 + length.seconds, nanos=length.microseconds * 1000)
