"""What the demo shows: its progress, and at the end the table and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from meterhold_server.demo.books import REPLAYED_CALLS, Tally
from meterhold_server.storage.verify import Verification

_MICROS_PER_CREDIT: Final = 1_000_000
_LIVE_SECONDS: Final = 0.1
# Where nobody watches, such as in a log, a line now and then.
_LINE_SECONDS: Final = 3.0
_PROBLEMS_SHOWN_MAX: Final = 20


@asynccontextmanager
async def progress(console: Console, tally: Tally, requests: int) -> AsyncIterator[None]:
    """Show how far the tally is, until the end of the block."""
    show = _watch if console.is_terminal else _print_now_and_then
    showing = asyncio.create_task(show(console, tally, requests))
    try:
        yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing
    console.print(_line(tally, requests))


def results(tally: Tally, verified: Verification) -> Table:
    """The table of what became of the requests, and of how long the calls took."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in _requests(tally):
        table.add_row(name, value)
    table.add_section()
    for name, value in _money(verified):
        table.add_row(name, value)
    table.add_section()
    for name, value in _calls(tally):
        table.add_row(name, value)
    return table


def equation(verified: Verification) -> tuple[bool, Text]:
    """Whether all credits are accounted for, and the sum, in credits and in micros."""
    given, gone = _sides(verified)
    exact = sum(given.values()) == sum(gone.values())
    sign = "=" if exact else "≠"
    lines = [f"{' + '.join(given)} {sign} {' + '.join(gone)}"]
    for shown, unit in ((credits_text, "credits"), ("{:,}".format, "micros")):
        left, right = (" + ".join(map(shown, side.values())) for side in (given, gone))
        lines.append(f"{left} {sign} {right} {unit}")
    return exact, Text("\n".join(lines), style="" if exact else "bold red")


def verdict(tally: Tally, verified: Verification) -> Iterator[Text]:
    """What was checked, and what of it does not hold."""
    yield from _judged(
        f"{verified.accounts:,} accounts, {verified.entries:,} entries",
        "every invariant holds",
        verified.violations,
    )
    yield from _judged(
        "books kept by the callers", "every answer and balance agrees", tally.problems
    )


def credits_text(micros: int) -> str:
    """Micros as credits, exactly."""
    whole, fraction = divmod(abs(micros), _MICROS_PER_CREDIT)
    return f"{'-' if micros < 0 else ''}{whole:,}.{fraction:06}"


async def _watch(console: Console, tally: Tally, requests: int) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            bar = ProgressBar(total=requests, completed=tally.finished)
            live.update(Group(bar, _line(tally, requests)), refresh=True)
            await asyncio.sleep(_LIVE_SECONDS)


async def _print_now_and_then(console: Console, tally: Tally, requests: int) -> None:
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        console.print(_line(tally, requests))


def _line(tally: Tally, requests: int) -> str:
    return (
        f"{tally.seconds:4.0f} s  {tally.finished:,}/{requests:,} done"
        f"  {tally.in_flight} in flight  {tally.refused:,} refused  {tally.crashed:,} crashed"
        f"  {tally.calls_per_second:,} calls/s"
    )


def _requests(tally: Tally) -> Iterator[tuple[str, str]]:
    yield "requests", f"{tally.sent:,}"
    yield "refused: too little left", f"{tally.refused:,}"
    yield "settled", f"{tally.settled:,}"
    if tally.settled_late:
        yield "of them late, after the hold expired", f"{tally.settled_late:,}"
    if tally.settled_short:
        yield "of them short, more than there was", f"{tally.settled_short:,}"
    yield "crashed", f"{tally.crashed:,}"
    yield "of them expired and released", f"{tally.expired_released:,}"
    yield "of them expired and charged", f"{tally.expired_charged:,}"


def _money(verified: Verification) -> Iterator[tuple[str, str]]:
    given, gone = _sides(verified)
    for name, micros in (given | gone).items():
        yield f"credits {name}", credits_text(micros)


def _sides(verified: Verification) -> tuple[dict[str, int], dict[str, int]]:
    """What came in, and where it is. Refunds and revocations only if there are any."""
    given = {"granted": verified.granted_micros}
    gone = {"spent": verified.spent_micros, "expired": verified.expired_micros}
    if verified.refunded_micros:
        given["refunded"] = verified.refunded_micros
    if verified.revoked_micros:
        gone["revoked"] = verified.revoked_micros
    return given, gone | {"held": verified.held_micros, "available": verified.available_micros}


def _calls(tally: Tally) -> Iterator[tuple[str, str]]:
    yield "replayed in", f"{tally.seconds:.1f} s"
    yield "in flight at most", f"{tally.in_flight_peak:,}"
    yield "calls", f"{tally.call_count:,}"
    if tally.repeated_calls:
        yield "of them repeated, as no answer came", f"{tally.repeated_calls:,}"
    yield "calls a second", f"{tally.calls_per_second:,}"
    for kind in REPLAYED_CALLS:
        times = tally.calls[kind]
        milliseconds = f"{times.percentile_ms(50):.1f} / {times.percentile_ms(99):.1f} ms"
        yield f"{kind} p50 / p99", milliseconds


def _judged(subject: str, good: str, wrong: Sequence[str]) -> Iterator[Text]:
    if not wrong:
        yield Text(f"{subject}: {good}", style="green")
        return
    yield Text(f"{subject}: {len(wrong):,} violations", style="bold red")
    for violation in wrong[:_PROBLEMS_SHOWN_MAX]:
        yield Text(f"  {violation}")
    if len(wrong) > _PROBLEMS_SHOWN_MAX:
        yield Text(f"  and {len(wrong) - _PROBLEMS_SHOWN_MAX:,} more")
