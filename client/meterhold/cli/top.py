"""The command `top`: one account, live."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

import meterhold
from meterhold.cli import keyboard, tables, times
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.options import Account, Interval, Unit
from meterhold.cli.running import command
from meterhold.cli.session import Session
from meterhold.cli.watching import RESERVATIONS_MAX, Seen, ServerClock, Snapshot, Watch, look

_INTERVAL = timedelta(seconds=1)
_INTERVAL_MIN = timedelta(milliseconds=100)
# A server that is away is to be seen soon; the next look is another try.
_TIMEOUT_SECONDS_MAX = 3.0
_SECONDS_BETWEEN_FRAMES = 0.25
_BAR_COLUMNS_MAX = 60
_ROWS_ONCE = 20
# Lines of a frame that are not rows of its two tables.
_OTHER_LINES = 11
_ROWS_MIN = 4

_Once = Annotated[bool, typer.Option("--once", help="Print it once, and end.")]


@command
def top(
    session: Session,
    account: Account,
    interval: Interval = None,
    once: _Once = False,
    unit: Unit = "",
) -> None:
    """Watch one account: balance, holds that run, newest entries. `q` or Ctrl-C ends."""
    if once:
        _show_once(session, account, unit)
        return
    if session.flags.json or not session.console.is_terminal:
        raise UsageError("top needs a terminal to draw on; --once prints what there is now")
    interval = _INTERVAL if interval is None else interval
    if interval < _INTERVAL_MIN:
        raise UsageError(f"--interval is at least {times.seconds_text(_INTERVAL_MIN)}")
    try:
        _watch(session, account, unit, interval)
    except KeyboardInterrupt:
        return


def _show_once(session: Session, account: str, unit: str) -> None:
    clock = ServerClock()
    with session.client() as client:
        snapshot = look(client, account, unit, clock)
    now = clock.at(datetime.now(UTC))
    session.show(snapshot, *_frame(session, account, unit, snapshot, now, rows=_ROWS_ONCE))


def _watch(session: Session, account: str, unit: str, interval: timedelta) -> None:
    with (
        Watch(
            session.client(timeout_seconds_max=_TIMEOUT_SECONDS_MAX), account, unit, interval
        ) as watch,
        keyboard.single_keys(),
        Live(console=session.console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            seen = watch.seen
            if seen.error is not None and not _may_pass(seen.error):
                raise seen.error
            now = watch.clock.at(datetime.now(UTC))
            rows = max(_ROWS_MIN, session.console.height - _OTHER_LINES)
            frame = [_state(seen)]
            if seen.snapshot is not None:
                frame += _frame(session, account, unit, seen.snapshot, now, rows=rows)
            live.update(Group(*frame), refresh=True)
            if keyboard.wait_for_key(_SECONDS_BETWEEN_FRAMES) == "q":
                return


def _may_pass(error: Exception) -> bool:
    """Whether a later look can do better: the server is away."""
    return isinstance(error, meterhold.Unavailable | meterhold.OutcomeUnknown)


def _state(seen: Seen) -> RenderableType:
    if seen.error is not None:
        told = tables.printable(f"no answer, still trying: {seen.error}")
        return Text(told, style="red", no_wrap=True, overflow="ellipsis")
    return Text("q ends" if seen.snapshot else "asking …", style="dim")


def _frame(
    session: Session, account: str, unit: str, snapshot: Snapshot, now: datetime, *, rows: int
) -> list[RenderableType]:
    """All but the state; its two tables have so many rows together, half of them for holds."""
    balance = snapshot.balance
    holds = sorted(snapshot.reservations, key=lambda one: one.expire_time)[: rows // 2]
    head = Text(f"{account} ({unit or 'credits'})", style="bold")
    head.append(f"  entry {balance.ledger_seq}  {times.shown(now)}", style="not bold dim")
    return [
        head,
        _amounts(balance, session.shown),
        _bar(balance, min(_BAR_COLUMNS_MAX, session.console.width)),
        "",
        _title("active holds", len(snapshot.reservations), RESERVATIONS_MAX),
        _holds(holds, now, session.shown),
        Text("newest entries", style="bold"),
        tables.entries(snapshot.entries[: rows - len(holds)], session.shown, one_line=True),
    ]


def _title(what: str, count: int, most: int) -> Text:
    return Text(f"{what}: {count}{' or more' if count == most else ''}", style="bold")


def _amounts(balance: meterhold.Balance, shown: tables.Shown) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row(
        Text(f"available {shown(balance.available_micros)}", style="green"),
        Text(f"held {shown(balance.held_micros)}", style="yellow"),
        f"remaining {shown(balance.remaining_micros)}",
        f"spent {shown(balance.spent_micros)}",
        Text(f"debt {shown(balance.debt_micros)}" if balance.debt_micros else "", style="red"),
    )
    return table


def _bar(balance: meterhold.Balance, columns: int) -> Text:
    """What is available and what is held, as parts of both together."""
    available_micros = max(0, balance.available_micros)
    total_micros = available_micros + balance.held_micros
    if not total_micros:
        return Text("·" * columns, style="dim")
    available = columns * available_micros // total_micros
    return Text.assemble(("█" * available, "green"), ("▒" * (columns - available), "yellow"))


def _holds(holds: Iterable[meterhold.Reservation], now: datetime, shown: tables.Shown) -> Table:
    """The time left is only as good as what is known of the server's clock."""
    return tables.listing(
        ("reservation", ">held", ">captured", ">left", "then"),
        (
            (
                one.reservation_id,
                shown(one.held_micros),
                shown(one.captured_micros),
                times.left_text(one.expire_time - now),
                one.on_expiry,
            )
            for one in holds
        ),
        one_line=True,
    )
