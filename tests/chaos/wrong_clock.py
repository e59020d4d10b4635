"""`python -m chaos.wrong_clock serve`: the server, with its wall clock off by so many seconds.

METERHOLD_CHAOS_CLOCK_SECONDS says how many; SIGUSR1 lets the clock jump to as many on the other
side of the true time. Python code sees that clock. The monotonic one, which no machine sets, is as
it was, and so is gRPC's, which measures deadlines.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
import time
from importlib import import_module
from types import SimpleNamespace
from typing import Final

SECONDS_SETTING: Final = "chaos_clock_seconds"

_off_by_seconds = float(os.environ.get(f"METERHOLD_{SECONDS_SETTING.upper()}", "0"))
_true_time, _true_time_ns, _TrueDatetime = time.time, time.time_ns, datetime.datetime


class _WrongDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _TrueDatetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:  # type: ignore[override]
        return _TrueDatetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


def _jump(*_: object) -> None:
    global _off_by_seconds
    _off_by_seconds = -_off_by_seconds


def _set_wrong() -> None:
    """Before the server is imported, as it may keep what it imports."""
    time.time = lambda: _true_time() + _off_by_seconds
    time.time_ns = lambda: _true_time_ns() + int(_off_by_seconds * 1e9)
    datetime.datetime = _WrongDatetime  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, _jump)


def main() -> int:
    _set_wrong()
    # It tells how much time a call has left by this module, from a time by the machine's clock.
    vars(import_module("grpc._cython.cygrpc"))["time"] = SimpleNamespace(time=_true_time)
    from meterhold_server import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
