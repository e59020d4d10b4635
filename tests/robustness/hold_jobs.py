"""Jobs that run inside `hold` blocks and end in every way, and the truth about what they did."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import meterhold
from meterhold import OnExpiry, OutcomeUnknown, Unavailable
from support.waiting import until

PAUSE_SECONDS_MAX: Final = 60.0
_AFTER_EXPIRY: Final = timedelta(milliseconds=50)


class Fate(StrEnum):
    """How a job ends. One that is AWAY loses the server just before the end of its block."""

    NORMAL = "NORMAL"
    RAISES = "RAISES"
    RAISES_AT_ONCE = "RAISES_AT_ONCE"
    """Before it does anything."""
    RAISES_AND_RELEASES = "RAISES_AND_RELEASES"
    """What it captured stays charged; what it collected is dropped."""
    CANCELLED = "CANCELLED"
    """Its task is. A job in a thread is interrupted as from the keyboard."""
    CANCELLED_TWICE = "CANCELLED_TWICE"
    """The second time while the end of the block waits for its settle."""
    OUTLIVES_TTL = "OUTLIVES_TTL"
    """Without heartbeats; it goes on charging after the hold was charged whole, or released."""
    OUTLIVES_TTL_BY_HEARTBEATS = "OUTLIVES_TTL_BY_HEARTBEATS"
    AWAY_AT_START = "AWAY_AT_START"
    """The server is away already when the block begins."""
    AWAY_WITH_JOURNAL = "AWAY_WITH_JOURNAL"
    AWAY_WITHOUT_JOURNAL = "AWAY_WITHOUT_JOURNAL"
    """The client lives until the server is back."""
    AWAY_AND_CLOSED = "AWAY_AND_CLOSED"
    """There is no journal, and the client is closed before the server is back."""
    AWAY_AND_KILLED = "AWAY_AND_KILLED"
    """The process is killed after the block has ended; another one finds its journal."""
    KILLED_BEFORE_HOLD = "KILLED_BEFORE_HOLD"
    KILLED_BEFORE_START = "KILLED_BEFORE_START"
    """With `on_expiry` RELEASE, before it says that it starts."""
    KILLED_AFTER_START = "KILLED_AFTER_START"
    KILLED_AFTER_CAPTURES = "KILLED_AFTER_CAPTURES"
    KILLED_AFTER_CHARGES = "KILLED_AFTER_CHARGES"


AWAY: Final = frozenset(
    {
        Fate.AWAY_WITH_JOURNAL,
        Fate.AWAY_WITHOUT_JOURNAL,
        Fate.AWAY_AND_CLOSED,
        Fate.AWAY_AND_KILLED,
    }
)


class Job(NamedTuple):
    """One `hold` block: what it holds, and what it then captures and charges, in micros."""

    name: str
    account: str
    fate: Fate
    is_async: bool
    held_micros: int
    captures: tuple[int, ...]
    charges: tuple[int, ...]
    on_expiry: OnExpiry
    ttl_seconds: float

    @property
    def options(self) -> dict[str, Any]:
        """Those of its `hold`."""
        return {
            "reservation_id": self.name,
            "ttl": timedelta(seconds=self.ttl_seconds),
            "on_expiry": self.on_expiry,
            "heartbeat": self.fate not in (Fate.OUTLIVES_TTL, Fate.KILLED_BEFORE_START),
            "on_error": "release" if self.fate is Fate.RAISES_AND_RELEASES else "settle",
        }


class Broken(Exception):
    """What a job raises that fails."""


_Deed: TypeAlias = Literal[
    "start", "work", "capture", "charge", "outlive", "pause", "raise", "cancel"
]


_BEFORE_START: Final[dict[Fate, _Deed]] = {
    Fate.RAISES_AT_ONCE: "raise",
    Fate.KILLED_BEFORE_START: "pause",
}
_AFTER_CAPTURES: Final[dict[Fate, _Deed]] = {
    Fate.KILLED_AFTER_CAPTURES: "pause",
    Fate.OUTLIVES_TTL: "outlive",
    Fate.OUTLIVES_TTL_BY_HEARTBEATS: "outlive",
}
_AT_THE_END: Final[dict[Fate, _Deed]] = {
    Fate.RAISES: "raise",
    Fate.RAISES_AND_RELEASES: "raise",
    Fate.CANCELLED: "cancel",
    Fate.CANCELLED_TWICE: "cancel",
    Fate.KILLED_AFTER_CHARGES: "pause",
}


def _deeds(job: Job) -> Iterator[tuple[_Deed, int]]:
    """What a job does inside its block, in order."""
    captures, late_captures = job.captures, job.captures[:0]
    if job.fate in AWAY:
        captures, late_captures = captures[:-1], captures[-1:]
    if job.fate in _BEFORE_START:
        yield _BEFORE_START[job.fate], 0
    if job.on_expiry is OnExpiry.RELEASE and job.fate is not Fate.OUTLIVES_TTL:
        yield "start", 0
    yield "work", 0
    if job.fate is Fate.KILLED_AFTER_START:
        yield "pause", 0
    for micros in captures:
        yield "capture", micros
    if job.fate in _AFTER_CAPTURES:
        yield _AFTER_CAPTURES[job.fate], 0
    for micros in job.charges:
        yield "charge", micros
    if job.fate in AWAY:
        yield "pause", 0
    for micros in late_captures:
        yield "capture", micros
    if job.fate in _AT_THE_END:
        yield _AT_THE_END[job.fate], 0


@dataclass
class Truth:
    """What a job did, whether or not it lived to tell."""

    worked: bool = False
    captured_micros: int = 0
    collected_micros: int = 0


class Stage:
    """Where jobs run: what they did is written down, and they pause until they may go on.

    What is written down survives the process. Safe to share between threads.
    """

    def __init__(self, truth: Path, paused: Callable[[str], object]) -> None:
        """`paused` is called with the name of a job that pauses, in its thread."""
        self._truth = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._paused = paused
        self.going_on = threading.Event()

    def write(self, job: Job, deed: _Deed, micros: int) -> None:
        os.write(self._truth, json.dumps([job.name, deed, micros]).encode() + b"\n")

    def pause(self, job: Job) -> None:
        self._paused(job.name)
        self.going_on.wait(PAUSE_SECONDS_MAX)

    async def pause_async(self, job: Job) -> None:
        self._paused(job.name)
        await until(self.going_on.is_set, seconds=PAUSE_SECONDS_MAX)

    def close(self) -> None:
        os.close(self._truth)


def read_truth(path: Path) -> dict[str, Truth]:
    """What all jobs did, by their names."""
    truths: dict[str, Truth] = defaultdict(Truth)
    for line in path.read_text().splitlines():
        name, deed, micros = json.loads(line)
        match deed:
            case "work":
                truths[name].worked = True
            case "capture":
                truths[name].captured_micros += micros
            case "charge":
                truths[name].collected_micros += micros
    return truths


def run(client: meterhold.Client, job: Job, stage: Stage) -> meterhold.Hold:
    """Run a job in this thread. Raises what its block does."""
    hold = client.hold(job.account, job.held_micros, **job.options)
    if job.fate is Fate.KILLED_BEFORE_HOLD:
        stage.pause(job)
    with hold:
        for deed, micros in _deeds(job):
            match deed:
                case "start":
                    hold.start()
                case "work":
                    stage.write(job, deed, 0)
                case "capture":
                    # What could not be told is made at the end of the block.
                    with suppress(OutcomeUnknown, Unavailable):
                        hold.capture(micros)
                    stage.write(job, deed, micros)
                case "charge":
                    hold.charge(micros)
                    stage.write(job, deed, micros)
                case "outlive":
                    time.sleep(_seconds_to_outlive(hold.expire_time))
                case "pause":
                    stage.pause(job)
                case "raise":
                    raise Broken(job.name)
                case "cancel":
                    raise KeyboardInterrupt(job.name)
    return hold


async def run_async(client: meterhold.AsyncClient, job: Job, stage: Stage) -> meterhold.AsyncHold:
    """Run a job in this task. Raises what its block does."""
    hold = client.hold(job.account, job.held_micros, **job.options)
    if job.fate is Fate.KILLED_BEFORE_HOLD:
        await stage.pause_async(job)
    async with hold:
        for deed, micros in _deeds(job):
            match deed:
                case "start":
                    await hold.start()
                case "work":
                    stage.write(job, deed, 0)
                case "capture":
                    with suppress(OutcomeUnknown, Unavailable):
                        await hold.capture(micros)
                    stage.write(job, deed, micros)
                case "charge":
                    hold.charge(micros)
                    stage.write(job, deed, micros)
                case "outlive":
                    await asyncio.sleep(_seconds_to_outlive(hold.expire_time))
                case "pause":
                    await stage.pause_async(job)
                case "raise":
                    raise Broken(job.name)
                case "cancel":
                    await _cancel(twice=job.fate is Fate.CANCELLED_TWICE)
    return hold


async def _cancel(*, twice: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    task.cancel()
    if twice:
        # After the next step of the task, when the end of the block waits for its settle.
        loop.call_soon(lambda: loop.call_soon(task.cancel))
    await asyncio.sleep(0)


def _seconds_to_outlive(expire_time: datetime | None) -> float:
    """From now until a hold has expired, of which only a clock tells."""
    assert expire_time is not None
    return max(0.0, (expire_time + _AFTER_EXPIRY - datetime.now(UTC)).total_seconds())
