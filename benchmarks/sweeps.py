"""How long holds that are due wait for the sweeper, in ledgers of different sizes."""

from __future__ import annotations

import argparse
import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

import psycopg
from rich.console import Console

from benchmarks import rounds
from benchmarks.ledgers import Accounts, hold
from benchmarks.load import Orders
from benchmarks.results import Round
from benchmarks.sides import Side, rows
from benchmarks.tables import Sheet

PREFIX: Final = "due-"

_STREAM_PART: Final = 4
_HOLDS_DUE_A_SECOND: Final = 1000
_CALLS_A_SECOND: Final = 300.0
_HOLDS_MADE_A_SECOND: Final = 2000

_ANY_DUE: Final = "SELECT EXISTS (SELECT FROM account WHERE next_expire_time <= clock_timestamp())"


class Swept(NamedTuple):
    """What the sweeper said of its runs, and how long it took until nothing was due."""

    seconds: float
    accounts: int
    lags: list[float]


def measure(sides: Sequence[Side], options: argparse.Namespace, console: Console) -> Sheet:
    """Debits at a given rate while nothing is due and while holds become due; and many at once."""
    count = max(1, options.due // _STREAM_PART)
    found: list[tuple[str, ...]] = []
    for side in sides:
        calls = _calls(side, options, options.seconds)
        found.append(("none", side.name, *[""] * 5, *_of_calls(calls)))
        swept, calls = _stream(side, options, count)
        name = f"{_HOLDS_DUE_A_SECOND:,} a second"
        found.append((name, side.name, *_of_sweeper(swept), *_of_calls(calls)))
        swept = _at_once(side, options.due)
        found.append((f"{options.due:,} at once", side.name, *_of_sweeper(swept), *[""] * 3))
        console.print(f"{side.name}: swept", style="dim")
    return Sheet("Growth: the sweeper", _HEADINGS, sorted(found))


_HEADINGS: Final = (
    "holds become due", "ledger", "swept", "until none was due, s", "a second", "lag p50 s",
    "lag max s", "Debit p50 ms", "Debit p99 ms", "refused",
)  # fmt: skip


def _of_sweeper(swept: Swept) -> Iterator[str]:
    yield f"{swept.accounts:,}"
    yield f"{swept.seconds:.1f}"
    yield f"{swept.accounts / swept.seconds:,.0f}"
    yield f"{statistics.median(swept.lags):.2f}"
    yield f"{max(swept.lags):.2f}"


def _of_calls(calls: Round) -> Iterator[str]:
    yield f"{calls['p50_milliseconds']:.1f}"
    yield f"{calls['p99_milliseconds']:.1f}"
    yield f"{calls['refused']:,.0f}"


def _at_once(side: Side, count: int) -> Swept:
    started = _hold(side, "at-once", count, within=timedelta())
    return _until_none_is_due(side, started, count)


def _stream(side: Side, options: argparse.Namespace, count: int) -> tuple[Swept, Round]:
    """Holds become due evenly, while Debits come."""
    seconds = max(0.4, count / _HOLDS_DUE_A_SECOND)
    started = _hold(side, "stream", count, within=timedelta(seconds=seconds))
    calls = _calls(side, options, seconds * 0.8)
    return _until_none_is_due(side, started, count), calls


def _calls(side: Side, options: argparse.Namespace, seconds: float) -> Round:
    """Debits in an open loop."""
    orders = Orders(
        address=side.server.address,
        workload="debit",
        run=secrets.token_hex(4),
        accounts=options.used,
        callers=1,
        seconds=seconds,
        warm_up_seconds=min(1.0, seconds / 8),
        rate=_CALLS_A_SECOND,
        seed=options.seed,
    )
    return rounds.run("benchmarks.load", orders, side.server.watched)


def _hold(side: Side, name: str, count: int, *, within: timedelta) -> float:
    """Make holds, wait until the first is due, and answer that time of the performance counter."""
    while not side.server.events.empty():
        side.server.events.get()
    # They are to be there before they are due.
    until = 0.2 + count / _HOLDS_MADE_A_SECOND
    due = time.perf_counter() + until
    with psycopg.connect(side.url, autocommit=True) as connection:
        accounts = Accounts(PREFIX, count, 1)
        hold(connection, accounts, name, until=timedelta(seconds=until), within=within)
    time.sleep(max(0.0, due - time.perf_counter()))
    return due


def _until_none_is_due(side: Side, started: float, count: int) -> Swept:
    """Listen to the sweeper until it has swept so many, and nothing is due."""
    accounts = 0
    lags: list[float] = []
    while accounts < count or rows(side.url, _ANY_DUE)[0][0]:
        event = side.server.events.get(timeout=600)
        if event["event"] == "swept":
            accounts += event["accounts"]
            lags.append(event["lag_seconds"])
        elif event["event"] == "ended":
            raise RuntimeError("the server ended")
    return Swept(time.perf_counter() - started, accounts, lags)
